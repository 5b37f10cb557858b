// Launches a plugin with the launch library that existing hosts are built on, and takes one
// resource through its life. Messages are built from the contract's descriptors at run time, so
// that nothing here is generated and the bytes are the Go implementation's own.
//
// With AUTO_MTLS set it does so over mutual TLS.
//
// go-host <plugin> <descriptors.bin> <config JSON> <resource type> <resource config JSON>
package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// connection hands out the raw channel: no stubs.
type connection struct{ plugin.NetRPCUnsupportedPlugin }

func (connection) GRPCServer(*plugin.GRPCBroker, *grpc.Server) error {
	return errors.New("this is the host")
}

func (connection) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, channel *grpc.ClientConn) (any, error) {
	return channel, nil
}

type host struct {
	channel *grpc.ClientConn
	files   *protoregistry.Files
}

// call sends a request written as protobuf JSON and answers the response message.
func (h host) call(method, request string) (*dynamicpb.Message, error) {
	service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	found, err := h.files.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		return nil, err
	}
	rpc := found.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(name))
	in, out := dynamicpb.NewMessage(rpc.Input()), dynamicpb.NewMessage(rpc.Output())
	if err := protojson.Unmarshal([]byte(request), in); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return out, h.channel.Invoke(ctx, "/"+service+"/"+name, in, out)
}

func run(arguments []string) error {
	executable, descriptors := arguments[0], arguments[1]
	config, kind, resource := arguments[2], arguments[3], arguments[4]

	encoded, err := os.ReadFile(descriptors)
	if err != nil {
		return err
	}
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(encoded, &set); err != nil {
		return err
	}
	files, err := protodesc.NewFiles(&set)
	if err != nil {
		return err
	}

	client := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig: plugin.HandshakeConfig{
			ProtocolVersion:  1,
			MagicCookieKey:   "WORKFLOW_PLUGIN",
			MagicCookieValue: "workflow-external-plugin-v1",
		},
		Plugins:          plugin.PluginSet{"plugin": connection{}},
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		Cmd:              exec.Command(executable),
		AutoMTLS:         os.Getenv("AUTO_MTLS") != "",
		Logger:           hclog.New(&hclog.LoggerOptions{Output: os.Stderr, Level: hclog.Info}),
	})
	defer client.Kill()
	protocol, err := client.Client()
	if err != nil {
		return fmt.Errorf("launch: %w", err)
	}
	fmt.Println("handshake")
	if err := protocol.Ping(); err != nil {
		return fmt.Errorf("health: %w", err)
	}
	fmt.Println("health")
	raw, err := protocol.Dispense("plugin")
	if err != nil {
		return err
	}
	h := host{channel: raw.(*grpc.ClientConn), files: files}

	const iac = "/workflow.plugin.external.iac."
	registry, err := h.call("/workflow.plugin.v1.PluginService/GetContractRegistry", "{}")
	if err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	if !strings.Contains(protojson.Format(registry), "iac.IaCProviderRequired") {
		return fmt.Errorf("registry: %v", registry)
	}
	fmt.Println("registry")
	capabilities, err := h.call(iac+"IaCProviderRequired/Capabilities", "{}")
	if err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	version := capabilities.Get(capabilities.Descriptor().Fields().ByName("compute_plan_version"))
	if version.String() != "v2" {
		return fmt.Errorf("capabilities: %v", capabilities)
	}
	fmt.Println("capabilities")

	// Protobuf JSON writes bytes in base64.
	bytesOf := func(text string) string {
		return `"` + base64.StdEncoding.EncodeToString([]byte(text)) + `"`
	}
	steps := []struct{ name, method, request string }{
		{"initialize", "IaCProviderRequired/Initialize", `{"configJson":` + bytesOf(config) + `}`},
		{"create", "ResourceDriver/Create", fmt.Sprintf(
			`{"resourceType":%q,"spec":{"name":"greeting","type":%q,"configJson":%s}}`, kind, kind, bytesOf(resource))},
		{"read", "ResourceDriver/Read", reference(kind)},
		{"delete", "ResourceDriver/Delete", reference(kind)},
	}
	for _, step := range steps {
		if _, err := h.call(iac+step.method, step.request); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		fmt.Println(step.name)
	}
	_, err = h.call(iac+"ResourceDriver/Read", reference(kind))
	if status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), "iac: resource not found") {
		return fmt.Errorf("read after delete: %v", err)
	}
	fmt.Println("not found")

	// With mutual TLS there is nothing to attach to again, and the library does not say where it is.
	socket := ""
	if process := client.ReattachConfig(); process != nil {
		socket = process.Addr.String()
	}
	began := time.Now()
	client.Kill()
	// The library waits two seconds and then kills; an orderly end is far from that.
	if took := time.Since(began); took > 1500*time.Millisecond {
		return fmt.Errorf("shutdown took %v", took)
	}
	if !client.Exited() {
		return errors.New("it has not exited")
	}
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		return fmt.Errorf("the socket is left behind: %v", err)
	}
	fmt.Println("shutdown")
	return nil
}

func reference(kind string) string {
	return fmt.Sprintf(`{"resourceType":%q,"ref":{"name":"greeting","type":%q}}`, kind, kind)
}

func main() {
	if len(os.Args) != 6 {
		fmt.Fprintln(os.Stderr, "go-host <plugin> <descriptors> <config> <type> <resource config>")
		os.Exit(2)
	}
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "go-host:", err)
		os.Exit(1)
	}
}
