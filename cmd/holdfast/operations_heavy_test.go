package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/cmd/holdfast/devtest"
	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/heavy"
)

// operationsApp keeps a file of known bytes and a log that grows, in one volume.
const operationsApp = `{"id":"/%s","cmd":"test -e data/known || seq 1 200000 > data/known; while true; do date +%%s%%N >> data/log; sleep 0.05; done",
	"instances":1,"cpus":0.1,"mem":32,"container":{"type":"MESOS","volumes":[{"containerPath":"data","mode":"RW",
	"external":{"name":"%s","provider":"dvdi","size":%d,"options":{"dvdi/driver":"pool"}}}]}}`

// operator types commands.
type operator struct {
	*testing.T
	*devtest.Cluster
}

// says runs holdfast and wants it to succeed and to print the words.
func (o operator) says(words string, args ...string) string {
	o.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command(filepath.Join(o.Bin, "holdfast"), append([]string{"--api", o.URL}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		o.Fatalf("holdfast %s: %v\n%s%s", strings.Join(args, " "), err, out.String(), errs.String())
	}
	if !strings.Contains(out.String(), words) {
		o.Errorf("holdfast %s says\n%s\nwhich has no %q", strings.Join(args, " "), out.String(), words)
	}
	return out.String()
}

// refuses wants an exit code and words on standard error.
func (o operator) refuses(code int, words string, args ...string) {
	o.Helper()
	var errs bytes.Buffer
	cmd := exec.Command(filepath.Join(o.Bin, "holdfast"), append([]string{"--api", o.URL}, args...)...)
	cmd.Stderr = &errs
	_ = cmd.Run()
	if got := cmd.ProcessState.ExitCode(); got != code || !strings.Contains(errs.String(), words) {
		o.Errorf("holdfast %s: exit code %d, %s; want %d and %q", strings.Join(args, " "), got, errs.String(), code, words)
	}
}

func (o operator) put(app, volume string, size int) {
	o.Helper()
	if _, err := o.API.PutApp(o.Context(), json.RawMessage(fmt.Sprintf(operationsApp, app, volume, size)), client.PutOptions{}); err != nil {
		o.Fatal(err)
	}
	o.Cluster.Running("/"+app, 1)
}

// content reads a file of an app's volume where it is mounted, "" while it is not there.
func (o operator) content(app, name string) string {
	o.Helper()
	list := o.Cluster.Running("/"+app, 1)
	v := list[0].Volumes[0]
	raw, err := os.ReadFile(filepath.Join(o.Dir, "nodes", list[0].Hostname, "isolator", "mounts", v.Driver, v.Name, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		o.Fatal(err)
	}
	return string(raw)
}

// TestHeavyOperations takes a volume through what an operator does to it: snapshot while it is written, clone into another app, growth while it is
// written, backup, deletion, and the restore on another node after the first is gone.
func TestHeavyOperations(t *testing.T) {
	heavy.Require(t, heavy.Root, heavy.Program("mkfs.xfs"), heavy.Program("restic"))
	dir := t.TempDir()
	config := filepath.Join(dir, "backup.yaml")
	for name, text := range map[string]string{
		filepath.Join(dir, "password"): "secret\n",
		config:                         fmt.Sprintf("repositories:\n- {name: nightly, url: %s/repository, password-file: %s/password, create: true}\n", dir, dir),
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	o := operator{t, devtest.StartOnXFS(t, "8G", "--agents", "2", "--pool-options", "backend=loop,fs=xfs", "--backup-config", config)}
	o.put("db", "data", 1)
	devtest.Await(t, "the app has written", 20*time.Second, func(context.Context) (bool, string, error) {
		return strings.Count(o.content("db", "log"), "\n") > 3 && strings.HasSuffix(o.content("db", "known"), "\n200000\n"), "", nil
	})
	known := o.content("db", "known")

	o.says("snapshot before of pool/data (its file system was frozen meanwhile)", "volume", "snapshot", "data", "--name", "before")
	o.says("before", "volume", "snapshots", "pool/data")
	o.says("cloned pool/data to pool/copy", "volume", "clone", "data", "copy", "--snapshot", "before")
	o.put("copied", "copy", 1)
	if got := o.content("copied", "known"); got != known {
		t.Errorf("the clone has %d bytes, not the %d of the volume", len(got), len(known))
	}

	lines := strings.Count(o.content("db", "log"), "\n")
	o.says("pool/data has 2GiB", "volume", "resize", "data", "2")
	o.says("2GiB", "volume", "usage", "data")
	o.refuses(1, "never made smaller", "volume", "resize", "data", "1")
	devtest.Await(t, "it is written to after the growth", 20*time.Second, func(context.Context) (bool, string, error) {
		return strings.Count(o.content("db", "log"), "\n") > lines, "", nil
	})
	o.refuses(4, "stop what uses it", "volume", "check", "data")
	o.refuses(3, "nowhere", "volume", "snapshot", "nowhere")
	o.refuses(1, "there are: nightly", "volume", "backup", "data")

	o.says("verified", "volume", "backup", "data", "--repository", "nightly", "--verify")
	o.says("nightly", "volume", "backups", "pool/data")
	on := o.Cluster.Running("/db", 1)[0].Hostname
	if _, err := o.API.Remove(t.Context(), "/db", client.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	devtest.Await(t, "the app is gone", 30*time.Second, func(ctx context.Context) (bool, string, error) {
		_, err := o.API.App(ctx, "/db")
		if fault.Is(err, fault.NotFound) {
			return true, "", nil
		}
		return false, "it is there", err
	})
	o.says("accepted", "volume", "remove", "data")
	devtest.Await(t, "the volume is gone", 30*time.Second, func(ctx context.Context) (bool, string, error) {
		_, err := o.API.Volume(ctx, "pool/data")
		if fault.Is(err, fault.NotFound) {
			return true, "", nil
		}
		return false, "it is there", err
	})
	o.says("pool/data", "volume", "bin")

	// The node that had it is gone; the other has never seen it.
	if err := exec.Command(filepath.Join(o.Bin, "holdfast"), "dev", "--dir", o.Dir, "agent", "kill", on).Run(); err != nil {
		t.Fatal(err)
	}
	o.says("restored pool/data", "volume", "restore", "pool/data", "--repository", "nightly", "--verify")
	o.put("again", "data", 1)
	if got := o.content("again", "known"); got != known {
		t.Errorf("restored are %d bytes, not the %d of the volume", len(got), len(known))
	}
	if now := o.Cluster.Running("/again", 1)[0].Hostname; now == on {
		t.Errorf("it runs on %s, which is dead", now)
	}
	o.says("restore", "operation", "list")

	// Removed, and taken back.
	o.says("accepted", "app", "remove", "/copied")
	devtest.Await(t, "the clone can be removed", 60*time.Second, func(ctx context.Context) (bool, string, error) {
		_, err := o.API.RemoveVolume(ctx, "copy")
		if fault.Is(err, fault.Conflict) {
			return false, err.Error(), nil
		}
		return err == nil, "", err
	})
	devtest.Await(t, "the clone is gone", 60*time.Second, func(ctx context.Context) (bool, string, error) {
		_, err := o.API.Volume(ctx, "copy")
		return fault.Is(err, fault.NotFound), "it is there", nil
	})
	o.says("undeleted pool/copy", "volume", "undelete", "pool/copy")
	o.put("taken", "copy", 1)
	if got := o.content("taken", "known"); got != known {
		t.Errorf("undeleted are %d bytes, not the %d of the volume", len(got), len(known))
	}

	// Removed for good.
	o.says("accepted", "app", "remove", "/taken")
	devtest.Await(t, "the app is gone", 60*time.Second, func(ctx context.Context) (bool, string, error) {
		_, err := o.API.App(ctx, "/taken")
		return fault.Is(err, fault.NotFound), "it is there", nil
	})
	o.says("remove pool/copy for good: accepted", "volume", "remove", "pool/copy", "--now")
	devtest.Await(t, "the volume is gone", 60*time.Second, func(ctx context.Context) (bool, string, error) {
		_, err := o.API.Volume(ctx, "pool/copy")
		return fault.Is(err, fault.NotFound), "it is there", nil
	})
	bin, err := o.API.Bin(context.Background(), "pool")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range bin {
		if v.Name == "copy" {
			t.Errorf("in the bin is %+v", v)
		}
	}
}
