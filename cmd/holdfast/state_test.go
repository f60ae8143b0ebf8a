package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/framework/store"
	"github.com/holdfast-io/holdfast/framework/store/bolt"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/internal/servertest"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

const stateCluster = "0f0e0d0c-0000-4000-8000-00000000000a"

// seedState makes a state directory with records of several kinds, n instances among them.
func seedState(t *testing.T, dir string, n int) {
	t.Helper()
	ctx := context.Background()
	back, err := bolt.Open(dir, bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	st, err := store.Open(ctx, back, stateCluster, "test")
	if err == nil {
		err = st.Lead(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	w := []state.Write{{Kind: state.KindFramework, Value: &state.Framework{Cluster: stateCluster, ID: "fw-1", Rev: 1}},
		{Kind: state.KindApp, ID: "/a/b", Value: &state.App{ID: "/a/b", Version: "v<1>", Instances: n, Rev: 3}}}
	for i := range n {
		id := state.InstanceID(fmt.Sprintf("/a/b#%d", i))
		w = append(w, state.Write{Kind: state.KindInstance, ID: string(id), Value: &state.Instance{ID: id, App: "/a/b", Ordinal: i, Rev: 1}})
	}
	ops, err := st.Encode(w)
	if err != nil {
		t.Fatal(err)
	}
	var b store.Batch
	b.Add(ops)
	if err := st.Commit(ctx, &b); err != nil {
		t.Fatal(err)
	}
}

// hf runs a command line.
func hf(t *testing.T, in string, args ...string) (code int, out, errs string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var o, e bytes.Buffer
	code = execute(ctx, args, strings.NewReader(in), &o, &e)
	return code, o.String(), e.String()
}

func hfOK(t *testing.T, in string, args ...string) string {
	t.Helper()
	code, out, errs := hf(t, in, args...)
	if code != 0 {
		t.Fatalf("holdfast %q: %d, %s", args, code, errs)
	}
	return out
}

func TestStateExportImport(t *testing.T) {
	dir, second := t.TempDir(), filepath.Join(t.TempDir(), "new")
	seedState(t, dir, 100)
	file := filepath.Join(t.TempDir(), "state.jsonl")
	hfOK(t, "", "state", "export", "--dir", dir, "--file", file)
	raw, err := os.ReadFile(file)
	if err != nil || bytes.Count(raw, []byte("\n")) != 104 {
		t.Fatalf("%d lines, %v", bytes.Count(raw, []byte("\n")), err)
	}
	text := string(raw)
	hfOK(t, text, "state", "import", "--dir", second)
	if again := hfOK(t, "", "state", "export", "--dir", second); again != text {
		t.Error("the state is another after export and import")
	}
	if code, _, errs := hf(t, text, "state", "import", "--dir", second); code != fault.ExitCode(fault.Exists) || !strings.Contains(errs, "not empty") {
		t.Errorf("import into what is not empty: %d %s", code, errs)
	}
	lines := strings.SplitAfter(text, "\n")
	for name, bad := range map[string]string{
		"nothing": "", "no export": "{}\n", "torn": strings.Join(lines[:50], ""), "line missing": lines[0] + strings.Join(lines[2:], ""),
		"twice": lines[0] + lines[1] + strings.Join(lines[1:], ""), "newer": strings.Replace(text, `"version":1`, `"version":2`, 1),
		"wrong place": strings.Replace(text, `"key":"meta/framework"`, `"key":"apps/x"`, 1), "leader": strings.Replace(text, `"key":"meta/framework"`, `"key":"meta/leader"`, 1),
		"newer record": strings.Replace(text, `"value":{"v":1`, `"value":{"v":9`, 1), "more after the end": text + lines[1],
	} {
		empty := filepath.Join(t.TempDir(), "x")
		if code, _, errs := hf(t, bad, "state", "import", "--dir", empty); code != fault.ExitCode(fault.Invalid) || !strings.Contains(errs, "line ") {
			t.Errorf("%s: %d %s", name, code, errs)
		}
		if _, err := os.Stat(empty); err == nil {
			t.Errorf("%s: something was written", name)
		}
	}
	if code, _, _ := hf(t, "", "state", "export"); code != fault.ExitUsage {
		t.Errorf("neither --dir nor --store: %d", code)
	}
	if code, _, errs := hf(t, "", "state", "export", "--dir", t.TempDir()); code != fault.ExitCode(fault.NotFound) {
		t.Errorf("export of nothing: %d %s", code, errs)
	}
}

// bbolt to file to ZooKeeper to file to Consul to file: always the same.
func TestHeavyStateBetweenStores(t *testing.T) {
	heavy.Require(t, servertest.NeedZooKeeper, servertest.NeedConsul)
	dir := t.TempDir()
	seedState(t, dir, 500)
	text := hfOK(t, "", "state", "export", "--dir", dir)
	for _, address := range []string{"zk://" + servertest.StartZooKeeper(t, 1).Servers()[0] + "/holdfast/state", "consul://" + servertest.StartConsul(t, "").Addr() + "/holdfast/state"} {
		hfOK(t, text, "state", "import", "--store", address)
		if again := hfOK(t, "", "state", "export", "--store", address); again != text {
			t.Errorf("%s: the state is another", address)
		}
		if code, _, errs := hf(t, text, "state", "import", "--store", address); code != fault.ExitCode(fault.Exists) {
			t.Errorf("%s: import into what is not empty: %d %s", address, code, errs)
		}
	}
}
