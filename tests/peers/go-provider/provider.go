package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var (
	errNotFound = errors.New("iac: resource not found")
	errExists   = errors.New("iac: resource already exists")
)

var kinds = []string{"infra.container_service", "infra.database", "infra.storage", "infra.vpc"}

// provider keeps every resource as one file in root.
type provider struct {
	mutex    sync.Mutex
	root     string
	region   string
	services []string
	jobs     map[string]string
	next     int
}

// resource is what a file holds.
type resource struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Kind    string `json:"kind"`
	Config  object `json:"config"`
	Owner   string `json:"owner,omitempty"`
	Version int    `json:"version"`
}

func (p *provider) calls() map[string]call {
	p.services = nil
	return map[string]call{
		"PluginService/GetManifest":         p.manifest,
		"PluginService/GetContractRegistry": p.registry,

		"IaCProviderRequired/Initialize":            p.initialize,
		"IaCProviderRequired/Name":                  p.name,
		"IaCProviderRequired/Version":               p.version,
		"IaCProviderRequired/Capabilities":          p.capabilities,
		"IaCProviderRequired/Status":                p.status,
		"IaCProviderRequired/Destroy":               p.destroy,
		"IaCProviderRequired/Import":                p.importOne,
		"IaCProviderRequired/ResolveSizing":         p.sizing,
		"IaCProviderRequired/BootstrapStateBackend": p.bootstrap,

		"ResourceDriver/Create":        p.create,
		"ResourceDriver/Read":          p.read,
		"ResourceDriver/Update":        p.update,
		"ResourceDriver/Delete":        p.remove,
		"ResourceDriver/Diff":          p.diff,
		"ResourceDriver/Scale":         p.scale,
		"ResourceDriver/HealthCheck":   p.health,
		"ResourceDriver/SensitiveKeys": p.sensitiveKeys,
		"ResourceDriver/Troubleshoot":  p.troubleshoot,

		"IaCProviderEnumerator/EnumerateAll":                    p.enumerateAll,
		"IaCProviderEnumerator/EnumerateByTag":                  p.enumerateByTag,
		"IaCProviderDriftDetector/DetectDrift":                  p.drift,
		"IaCProviderDriftDetector/DetectDriftWithSpecs":         p.drift,
		"IaCProviderDriftConfigDetector/DetectDriftConfig":      p.drift,
		"IaCProviderCredentialRevoker/RevokeProviderCredential": p.revoke,
		"IaCProviderRegionLister/ListRegions":                   p.regions,
		"IaCProviderOwnership/GetOwner":                         p.getOwner,
		"IaCProviderOwnership/SetOwner":                         p.setOwner,
		"IaCProviderOwnership/ListOwners":                       p.listOwners,
		"IaCProviderFinalizer/FinalizeApply":                    p.finalize,
		"IaCProviderMigrationRepairer/RepairDirtyMigration":     p.repair,
		"IaCProviderValidator/ValidatePlan":                     p.validate,
		"IaCProviderRunner/RunJob":                              p.runJob,
		"IaCProviderRunner/JobStatus":                           p.jobStatus,
		"IaCRequirementDiscovery/DiscoverRequirements":          p.discover,
		"IaCProviderRequirementMapper/MapRequirements":          p.mapRequirements,

		"IaCStateBackend/Configure":        p.stateConfigure,
		"IaCStateBackend/ListBackendNames": p.stateNames,
		"IaCStateBackend/GetState":         p.stateGet,
		"IaCStateBackend/SaveState":        p.stateSave,
		"IaCStateBackend/ListStates":       p.stateList,
		"IaCStateBackend/DeleteState":      p.stateDelete,
		"IaCStateBackend/Lock":             p.stateLock,
		"IaCStateBackend/Unlock":           p.stateUnlock,
	}
}

func (p *provider) streams() map[string]stream {
	return map[string]stream{
		"IaCProviderLogCapture/CaptureLogs": p.captureLogs,
		"IaCProviderRunner/JobLogs":         p.jobLogs,
	}
}

// === Who it is ===

func (p *provider) manifest(context.Context, object) (object, error) {
	return object{"name": "workflow-plugin-files", "version": "1.2.3", "author": "tests", "description": "files"}, nil
}

func (p *provider) registry(context.Context, object) (object, error) {
	names := append([]string{"grpc.health.v1.Health", "plugin.GRPCBroker", "plugin.GRPCStdio"}, p.services...)
	sort.Strings(names)
	var all []any
	for _, name := range names {
		all = append(all, object{"kind": 3, "mode": 3, "service_name": name})
	}
	return object{"contracts": all}, nil
}

func (p *provider) initialize(_ context.Context, in object) (object, error) {
	config, err := jsonField(in, "config_json")
	if err != nil {
		return nil, err
	}
	root := word(config, "root")
	if root == "" {
		return nil, status.Error(codes.InvalidArgument, "the config needs `root`")
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.root, p.region = root, word(config, "region")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return nil, err
	}
	// For the test that looks at what a plugin gets to see.
	folder, _ := os.Getwd()
	seen := fmt.Sprintf("args=%q\ncwd=%s\nconfig=%v\n%s\n", os.Args, folder, config, strings.Join(os.Environ(), "\n"))
	fmt.Fprintln(os.Stderr, "initialised in", root)
	return object{}, os.WriteFile(filepath.Join(root, "seen.txt"), []byte(seen), 0o600)
}

func (p *provider) name(context.Context, object) (object, error) {
	return object{"name": "files"}, nil
}

func (p *provider) version(context.Context, object) (object, error) {
	return object{"version": "1.2.3"}, nil
}

func (p *provider) capabilities(context.Context, object) (object, error) {
	// Hosts ask after Initialize; the conformance kit asks before, as some hosts do.
	if p.root == "" && os.Getenv("FILES_EARLY") == "" {
		return nil, status.Error(codes.FailedPrecondition, "Capabilities came before Initialize")
	}
	var all []any
	for _, kind := range kinds {
		all = append(all, object{"resource_type": kind, "tier": 1, "operations": []string{"create", "read", "update", "delete"}})
	}
	return object{"capabilities": all, "compute_plan_version": "v2"}, nil
}

// === Resources ===

func (p *provider) path(kind, name string) string {
	return filepath.Join(p.root, kind+"__"+name+".json")
}

func (p *provider) load(ref object) (*resource, error) {
	text, err := os.ReadFile(p.path(word(ref, "type"), word(ref, "name")))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", errNotFound, word(ref, "name"))
	}
	if err != nil {
		return nil, err
	}
	var found resource
	if err := json.Unmarshal(text, &found); err != nil {
		return nil, err
	}
	if id := word(ref, "provider_id"); id != "" && id != found.ID {
		return nil, fmt.Errorf("%w: %s has another id", errNotFound, id)
	}
	return &found, nil
}

func (p *provider) all() ([]*resource, error) {
	paths, err := filepath.Glob(filepath.Join(p.root, "infra.*__*.json"))
	if err != nil {
		return nil, err
	}
	sort.Strings(paths)
	var found []*resource
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		one := &resource{}
		if err := json.Unmarshal(text, one); err != nil {
			return nil, err
		}
		found = append(found, one)
	}
	return found, nil
}

func (p *provider) store(made *resource) error {
	text, err := json.Marshal(made)
	if err != nil {
		return err
	}
	return os.WriteFile(p.path(made.Kind, made.Name), text, 0o600)
}

func (p *provider) known(in object) error {
	if p.root == "" {
		return status.Error(codes.FailedPrecondition, "Initialize comes first")
	}
	kind := word(in, "resource_type")
	for _, one := range kinds {
		if one == kind {
			return nil
		}
	}
	// As existing plugins do: the code says "not found", the text does not.
	return status.Errorf(codes.NotFound, "no driver for resource type %q", kind)
}

// output is what the host gets: numbers as Go has them, one secret.
func output(made *resource) object {
	outputs := object{
		"id_number": 5.0, "region": made.Config["region"], "size": made.Config["size"],
		"live_url": "http://" + made.Name + ".test", "version": made.Version,
	}
	sensitive := object{"region": false}
	if made.Kind == "infra.database" {
		outputs["password"] = "pw-" + made.ID + "-of-" + made.Name
		outputs["admin_note"] = "only for the administrator of " + made.ID
		sensitive["password"] = true
	}
	if count, ok := made.Config["answer_bytes"].(float64); ok {
		outputs["blob"] = strings.Repeat("x", int(count))
	}
	if made.Config["odd_secret"] == true {
		outputs["odd"], sensitive["odd"] = 42, true
	}
	return object{
		"name": made.Name, "type": made.Kind, "provider_id": made.ID,
		"outputs_json": jsonBytes(outputs), "sensitive": sensitive, "status": "running",
	}
}

func (p *provider) create(_ context.Context, in object) (object, error) {
	if err := p.known(in); err != nil {
		return nil, err
	}
	spec := child(in, "spec")
	config, err := jsonField(spec, "config_json")
	if err != nil {
		return nil, err
	}
	if text := word(config, "fail_with"); text != "" {
		return nil, errors.New(text)
	}
	if count, ok := config["print_bytes"].(float64); ok {
		fmt.Println(strings.Repeat("printed ", int(count)/8))
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if _, err := p.load(object{"type": spec["type"], "name": spec["name"]}); err == nil {
		return nil, fmt.Errorf("%w: %s", errExists, word(spec, "name"))
	}
	p.next++
	made := &resource{
		ID:   fmt.Sprintf("file-%d-%d", time.Now().UnixNano(), p.next),
		Name: word(spec, "name"), Kind: word(spec, "type"), Config: config, Version: 1,
	}
	if err := p.store(made); err != nil {
		return nil, err
	}
	return object{"output": output(made)}, p.note("create", made.Name, "")
}

// note keeps a list of what was done, in its order.
func (p *provider) note(what, name, id string) error {
	file, err := os.OpenFile(filepath.Join(p.root, "done.txt"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(file, "%s %s %s\n", what, name, id)
	return errors.Join(err, file.Close())
}

func (p *provider) read(_ context.Context, in object) (object, error) {
	if err := p.known(in); err != nil {
		return nil, err
	}
	found, err := p.load(child(in, "ref"))
	if err != nil {
		return nil, err
	}
	return object{"output": output(found)}, nil
}

func (p *provider) update(_ context.Context, in object) (object, error) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	found, err := p.load(child(in, "ref"))
	if err != nil {
		return nil, err
	}
	if found.Config, err = jsonField(child(in, "spec"), "config_json"); err != nil {
		return nil, err
	}
	found.Version++
	if err := p.store(found); err != nil {
		return nil, err
	}
	return object{"output": output(found)}, nil
}

func (p *provider) remove(_ context.Context, in object) (object, error) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	found, err := p.load(child(in, "ref"))
	if err != nil {
		return nil, err
	}
	if err := os.Remove(p.path(found.Kind, found.Name)); err != nil {
		return nil, err
	}
	return object{}, p.note("delete", found.Name, word(child(in, "ref"), "provider_id"))
}

// diff compares what is desired with the outputs on record, as existing drivers do. A region
// cannot be changed in place.
func (p *provider) diff(_ context.Context, in object) (object, error) {
	if err := p.known(in); err != nil {
		return nil, err
	}
	desired, err := jsonField(child(in, "desired"), "config_json")
	if err != nil {
		return nil, err
	}
	current, err := jsonField(child(in, "current"), "outputs_json")
	if err != nil {
		return nil, err
	}
	if password, ok := current["password"].(string); ok && !strings.HasPrefix(password, "secret_ref://") {
		return nil, errors.New("a password came back in the clear")
	}
	var changes []any
	result := object{}
	for _, key := range []string{"region", "size"} {
		if !reflect.DeepEqual(desired[key], current[key]) {
			changes = append(changes, object{
				"path": key, "old_json": jsonBytes(current[key]), "new_json": jsonBytes(desired[key]),
				"force_new": key == "region",
			})
			result["needs_update"] = true
		}
	}
	result["changes"] = changes
	return object{"result": result}, nil
}

func (p *provider) scale(_ context.Context, in object) (object, error) {
	found, err := p.load(child(in, "ref"))
	if err != nil {
		return nil, err
	}
	found.Config["instance_count"] = in["replicas"]
	found.Version++
	if err := p.store(found); err != nil {
		return nil, err
	}
	return object{"output": output(found)}, nil
}

func (p *provider) health(_ context.Context, in object) (object, error) {
	found, err := p.load(child(in, "ref"))
	if err != nil {
		return object{"result": object{"healthy": false, "message": err.Error()}}, nil
	}
	return object{"result": object{"healthy": true, "message": "the file of " + found.Name + " is there"}}, nil
}

func (p *provider) sensitiveKeys(_ context.Context, in object) (object, error) {
	if word(in, "resource_type") == "infra.database" {
		return object{"keys": []string{"password", "admin_note"}}, nil
	}
	return object{}, nil
}

func (p *provider) troubleshoot(_ context.Context, in object) (object, error) {
	if word(in, "resource_type") == "infra.vpc" {
		return nil, status.Error(codes.Unimplemented, "not for networks")
	}
	return object{"diagnostics": []any{object{
		"id": "deploy-7", "phase": "build", "cause": "it saw: " + word(in, "failure_msg"),
		"at": "2026-01-05T08:00:00Z", "detail": "line one\nline two",
	}}}, nil
}
