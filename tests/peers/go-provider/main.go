// A provider plugin on the launch library that existing plugins are built on. Its resources are
// files in a folder; it serves every service of the contract, so that a host can be tested against
// the real library, the real server and the real encoder.
//
// Messages are built from the compiled contract (descriptors.bin, written by whoever builds this)
// at run time: no generated code, and nothing that could disagree with the contract.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	plugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// server is the library's own, but for a file that says how old a connection may grow.
func server(options []grpc.ServerOption) *grpc.Server {
	if text, err := os.ReadFile(filepath.Join(filepath.Dir(os.Args[0]), "max-age")); err == nil {
		if age, err := time.ParseDuration(string(text)); err == nil {
			options = append(options, grpc.KeepaliveParams(keepalive.ServerParameters{
				MaxConnectionAge:      age,
				MaxConnectionAgeGrace: 30 * time.Second,
			}))
		}
	}
	return plugin.DefaultGRPCServer(options)
}

func main() {
	if len(os.Args) > 1 {
		fmt.Fprintf(os.Stderr, "unexpected arguments: %q\n", os.Args[1:])
		os.Exit(2)
	}
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: plugin.HandshakeConfig{
			ProtocolVersion:  1,
			MagicCookieKey:   "WORKFLOW_PLUGIN",
			MagicCookieValue: "workflow-external-plugin-v1",
		},
		Plugins:    plugin.PluginSet{"iac": &provider{jobs: map[string]string{}}},
		GRPCServer: server,
	})
}
