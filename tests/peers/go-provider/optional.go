package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func list(message object, name string) []object {
	items, _ := message[name].([]any)
	var all []object
	for _, item := range items {
		if one, ok := item.(object); ok {
			all = append(all, one)
		}
	}
	return all
}

func ref(found *resource) object {
	return object{"name": found.Name, "type": found.Kind, "provider_id": found.ID}
}

// === The rest of the required service ===

func (p *provider) status(_ context.Context, in object) (object, error) {
	var all []any
	for _, one := range list(in, "refs") {
		if found, err := p.load(one); err == nil {
			row := ref(found)
			row["status"] = "running"
			all = append(all, row)
		}
	}
	return object{"statuses": all}, nil
}

func (p *provider) destroy(_ context.Context, in object) (object, error) {
	var names, failures []any
	for _, one := range list(in, "refs") {
		found, err := p.load(one)
		if err == nil {
			err = os.Remove(p.path(found.Kind, found.Name))
		}
		if err != nil {
			failures = append(failures, object{"resource": one["name"], "action": "delete", "error": err.Error()})
			continue
		}
		names = append(names, found.Name)
	}
	return object{"result": object{"destroyed": names, "errors": failures}}, nil
}

func (p *provider) importOne(_ context.Context, in object) (object, error) {
	all, err := p.all()
	if err != nil {
		return nil, err
	}
	for _, found := range all {
		if found.ID == word(in, "provider_id") && found.Kind == word(in, "resource_type") {
			return object{"state": object{
				"id": found.Name, "name": found.Name, "type": found.Kind, "provider_id": found.ID,
				"outputs_json": output(found)["outputs_json"],
			}}, nil
		}
	}
	return nil, fmt.Errorf("%w: %s", errNotFound, word(in, "provider_id"))
}

func (p *provider) sizing(_ context.Context, in object) (object, error) {
	slug := map[string]string{"xs": "tiny", "s": "small", "m": "medium", "l": "large", "xl": "huge"}[word(in, "size")]
	if slug == "" {
		return object{}, nil
	}
	return object{"sizing": object{"instance_type": slug, "specs_json": jsonBytes(object{"cpu": 2.0, "hint": child(in, "hints")["cpu"]})}}, nil
}

func (p *provider) bootstrap(_ context.Context, in object) (object, error) {
	config, err := jsonField(in, "config_json")
	if err != nil {
		return nil, err
	}
	bucket := word(config, "bucket")
	if bucket == "" {
		return nil, status.Error(codes.InvalidArgument, "`bucket` is missing")
	}
	return object{"result": object{
		"bucket": bucket, "region": p.region, "endpoint": "http://store.test",
		"env_vars": object{"STORE_KEY": "key-of-" + bucket},
	}}, os.MkdirAll(filepath.Join(p.root, "buckets", bucket), 0o755)
}

// === Optional services ===

func (p *provider) enumerateAll(_ context.Context, in object) (object, error) {
	all, err := p.all()
	if err != nil {
		return nil, err
	}
	var outputs []any
	for _, found := range all {
		if found.Kind == word(in, "resource_type") {
			outputs = append(outputs, output(found))
		}
	}
	return object{"outputs": outputs}, nil
}

func (p *provider) enumerateByTag(_ context.Context, in object) (object, error) {
	all, err := p.all()
	if err != nil {
		return nil, err
	}
	var refs []any
	for _, found := range all {
		if found.Config["tag"] == in["tag"] {
			refs = append(refs, ref(found))
		}
	}
	return object{"refs": refs}, nil
}

// drift serves all three questions: without configs only what is gone is seen.
func (p *provider) drift(_ context.Context, in object) (object, error) {
	specs := child(in, "specs")
	var verdicts []any
	for _, one := range list(in, "refs") {
		verdict := object{"name": one["name"], "type": one["type"], "class": "DRIFT_CLASS_IN_SYNC"}
		found, err := p.load(one)
		if err != nil {
			verdict["class"], verdict["drifted"] = "DRIFT_CLASS_GHOST", true
			verdicts = append(verdicts, verdict)
			continue
		}
		if spec, ok := specs[word(one, "name")].(object); ok {
			config, err := jsonField(spec, "config_json")
			if err != nil {
				return nil, err
			}
			if config["size"] != found.Config["size"] {
				verdict["class"], verdict["drifted"] = "DRIFT_CLASS_CONFIG", true
				verdict["fields"] = []string{"size"}
				verdict["expected_json"] = jsonBytes(object{"size": config["size"]})
				verdict["actual_json"] = jsonBytes(object{"size": found.Config["size"]})
			}
		}
		verdicts = append(verdicts, verdict)
	}
	return object{"drifts": verdicts}, nil
}

func (p *provider) revoke(_ context.Context, in object) (object, error) {
	if word(in, "credential_id") == "gone" {
		return nil, fmt.Errorf("%w: gone", errNotFound)
	}
	line := word(in, "source") + " " + word(in, "credential_id") + "\n"
	return object{}, os.WriteFile(filepath.Join(p.root, "revoked.txt"), []byte(line), 0o600)
}

func (p *provider) regions(context.Context, object) (object, error) {
	return object{"regions": []any{
		object{"name": "here1", "display_name": "Here"}, object{"name": "  "}, object{"name": "there1"},
	}}, nil
}

func (p *provider) getOwner(_ context.Context, in object) (object, error) {
	found, err := p.load(child(in, "ref"))
	if err != nil {
		return nil, err
	}
	return object{"owner": found.Owner, "source": "file"}, nil
}

func (p *provider) setOwner(_ context.Context, in object) (object, error) {
	found, err := p.load(child(in, "ref"))
	if err != nil {
		return nil, err
	}
	found.Owner = word(in, "owner")
	return object{}, p.store(found)
}

func (p *provider) listOwners(_ context.Context, in object) (object, error) {
	all, err := p.all()
	if err != nil {
		return nil, err
	}
	var owned []any
	for _, found := range all {
		kind := word(in, "resource_type")
		if found.Owner == word(in, "owner") && (kind == "" || kind == found.Kind) {
			owned = append(owned, object{"ref": ref(found), "owner": found.Owner, "source": "file"})
		}
	}
	return object{"resources": owned}, nil
}

func (p *provider) finalize(_ context.Context, in object) (object, error) {
	file, err := os.OpenFile(filepath.Join(p.root, "finalized.txt"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if _, err := fmt.Fprintln(file, word(in, "plan_id")); err != nil {
		return nil, err
	}
	switch word(in, "plan_id") {
	case "plan-with-failures":
		return object{"errors": []any{object{"resource": "db", "action": "deferred_update", "error": "the firewall is closed"}}}, nil
	case "plan-that-breaks":
		return nil, errors.New("iac: forbidden: no firewall for you")
	}
	return object{}, nil
}

func (p *provider) repair(_ context.Context, in object) (object, error) {
	order := child(in, "request")
	if word(order, "confirm_force") != "FORCE_MIGRATION_METADATA" {
		return object{"result": object{"status": "approval_required"}}, nil
	}
	return object{"result": object{
		"provider_job_id": "job-9", "status": "succeeded", "applied": []string{word(order, "force_version")},
		"logs": "forced", "diagnostics": []any{object{"phase": "migrate", "cause": "was dirty"}},
	}}, nil
}

func (p *provider) validate(_ context.Context, in object) (object, error) {
	var said []any
	for _, action := range list(child(in, "plan"), "actions") {
		spec := child(action, "resource")
		config, err := jsonField(spec, "config_json")
		if err != nil {
			return nil, err
		}
		if config["size"] == "absurd" {
			said = append(said, object{
				"severity": "PLAN_DIAGNOSTIC_ERROR", "resource": spec["name"], "field": "size", "message": "nobody has that size",
			})
		}
	}
	return object{"diagnostics": append(said, object{"severity": 1, "message": "files are not for production"})}, nil
}

func (p *provider) captureLogs(ctx context.Context, in object, send func(object) error) error {
	for i, text := range []string{
		fmt.Sprintf("log of %s (%s)\n", word(in, "resource_name"), word(in, "log_type")),
		fmt.Sprintf("tail=%v follow=%v\n", in["tail_lines"], in["follow"]),
	} {
		piece := object{"data": base64Text(text), "source": "historic", "eof": i == 1}
		if err := send(piece); err != nil {
			return err
		}
	}
	// The end was said; some servers keep the stream open all the same.
	<-ctx.Done()
	return nil
}

// === Jobs ===

func (p *provider) runJob(_ context.Context, in object) (object, error) {
	if word(in, "name") == "" {
		return object{}, nil
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	id := fmt.Sprintf("job-%d", len(p.jobs)+1)
	secrets := child(in, "env_vars_secret")
	p.jobs[id] = fmt.Sprintf("ran %s with %v and %v", word(in, "run_command"), child(in, "env_vars"), secrets)
	return object{"id": id, "name": in["name"], "provider": "files", "metadata": object{"log": p.jobs[id]}}, nil
}

func (p *provider) jobStatus(_ context.Context, in object) (object, error) {
	if child(in, "metadata")["log"] == nil {
		return nil, fmt.Errorf("%w: job %s", errNotFound, word(in, "id"))
	}
	if strings.Contains(fmt.Sprint(child(in, "metadata")["log"]), "ran false") {
		return object{"state": "JOB_STATE_FAILED", "exit_code": 3, "message": "it failed"}, nil
	}
	return object{"state": "JOB_STATE_SUCCEEDED", "message": "done"}, nil
}

func (p *provider) jobLogs(_ context.Context, in object, send func(object) error) error {
	return send(object{"data": base64Text(fmt.Sprintln(child(in, "metadata")["log"]))})
}

// discover says that an application needs what its provider module lists under `needs`; of one that says
// nothing at all, that it needs files.
func (p *provider) discover(_ context.Context, in object) (object, error) {
	config, err := jsonField(in, "module_config_json")
	if err != nil {
		return nil, err
	}
	// For the test that looks at what a plugin gets to see.
	if p.root != "" {
		seen := fmt.Sprint(config, child(in, "context"))
		if err := os.WriteFile(filepath.Join(p.root, "discovered.txt"), []byte(seen), 0o600); err != nil {
			return nil, err
		}
	}
	var needs []any
	listed, _ := config["needs"].([]any)
	for _, key := range listed {
		needs = append(needs, object{"key": key, "kind": "REQUIREMENT_KIND_DATABASE", "runtimes": []any{"REQUIREMENT_RUNTIME_KUBERNETES"}})
	}
	if len(config) == 0 {
		name := word(child(in, "context"), "application")
		needs = append(needs, object{"key": name + "-files", "kind": "REQUIREMENT_KIND_STORAGE"})
	}
	return object{"requirements": needs}, nil
}

func (p *provider) mapRequirements(_ context.Context, in object) (object, error) {
	var accepted, rejected, modules []any
	for _, need := range list(in, "requirements") {
		key := word(need, "key")
		if word(need, "kind") != "REQUIREMENT_KIND_DATABASE" {
			rejected = append(rejected, object{"key": key, "code": "no_such_thing", "message": "files cannot do that"})
			continue
		}
		accepted = append(accepted, key)
		modules = append(modules, object{
			"name": key + "-db", "type": "infra.database",
			"config_json": jsonBytes(object{"provider": in["provider"], "password": "${DATABASE_PASSWORD}"}),
		})
	}
	return object{
		"accepted_keys": accepted, "rejected": rejected, "modules": modules,
		"notes": []any{object{"key": "", "message": "runtime " + word(in, "runtime")}},
	}, nil
}
