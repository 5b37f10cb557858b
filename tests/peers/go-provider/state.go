package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func base64Text(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// stateFolder is set by Configure; it is another process's root in general.
var stateFolder string

func configured() error {
	if stateFolder == "" {
		return status.Error(codes.FailedPrecondition, "Configure comes first")
	}
	return nil
}

func statePath(id, suffix string) string {
	return filepath.Join(stateFolder, strings.NewReplacer("/", "_", `\`, "_").Replace(id)+suffix)
}

func (p *provider) stateNames(context.Context, object) (object, error) {
	return object{"backend_names": []string{"files"}}, nil
}

func (p *provider) stateConfigure(_ context.Context, in object) (object, error) {
	config, err := jsonField(in, "config_json")
	if err != nil || word(in, "backend_name") != "files" || word(config, "folder") == "" {
		return nil, status.Errorf(codes.InvalidArgument, "backend `files` needs a `folder`: %v", err)
	}
	stateFolder = word(config, "folder")
	return object{}, os.MkdirAll(stateFolder, 0o700)
}

func (p *provider) stateGet(_ context.Context, in object) (object, error) {
	if err := configured(); err != nil {
		return nil, err
	}
	state, err := readState(statePath(word(in, "resource_id"), ".json"))
	if errors.Is(err, os.ErrNotExist) {
		return object{"exists": false}, nil
	}
	return object{"exists": true, "state": state}, err
}

func readState(path string) (object, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var state object
	return state, json.Unmarshal(text, &state)
}

func (p *provider) stateSave(_ context.Context, in object) (object, error) {
	if err := configured(); err != nil {
		return nil, err
	}
	state := child(in, "state")
	text, err := json.Marshal(state)
	if err != nil {
		return nil, err
	}
	return object{}, os.WriteFile(statePath(word(state, "resource_id"), ".json"), text, 0o600)
}

func (p *provider) stateList(_ context.Context, in object) (object, error) {
	if err := configured(); err != nil {
		return nil, err
	}
	paths, err := filepath.Glob(filepath.Join(stateFolder, "*.json"))
	if err != nil {
		return nil, err
	}
	var all []any
	for _, path := range paths {
		state, err := readState(path)
		if err != nil {
			return nil, err
		}
		passes := true
		for _, key := range []string{"resource_type", "provider", "status"} {
			wanted := word(child(in, "filter"), key)
			passes = passes && (wanted == "" || wanted == word(state, key))
		}
		if passes {
			all = append(all, state)
		}
	}
	return object{"states": all}, nil
}

func (p *provider) stateDelete(_ context.Context, in object) (object, error) {
	if err := configured(); err != nil {
		return nil, err
	}
	err := os.Remove(statePath(word(in, "resource_id"), ".json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("state not found: %s", word(in, "resource_id"))
	}
	return object{}, err
}

func (p *provider) stateLock(_ context.Context, in object) (object, error) {
	if err := configured(); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(statePath(word(in, "resource_id"), ".lock"), os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, status.Errorf(codes.FailedPrecondition, "held: %v", err)
	}
	return object{}, file.Close()
}

func (p *provider) stateUnlock(_ context.Context, in object) (object, error) {
	if err := configured(); err != nil {
		return nil, err
	}
	return object{}, os.Remove(statePath(word(in, "resource_id"), ".lock"))
}
