package fence

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/heavy"
)

func tree(t *testing.T) (volume, other string) {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	volume, other = filepath.Join(dir, "vol"), filepath.Join(dir, "vol2")
	for _, d := range []string{volume, other} {
		if err := os.MkdirAll(filepath.Join(d, "sub"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, "file"), make([]byte, 8192), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return volume, other
}

func in(dir string) func(*exec.Cmd) { return func(c *exec.Cmd) { c.Dir = dir } }

func env(kv ...string) func(*exec.Cmd) {
	return func(c *exec.Cmd) { c.Env = append(c.Env, kv...) }
}

// Every kind of user is found and killed; who only looks like one lives on.
func TestFenceKillsUsersOnly(t *testing.T) {
	volume, other := tree(t)
	sandbox := t.TempDir()
	if err := os.Symlink(volume, filepath.Join(sandbox, "data")); err != nil {
		t.Fatal(err)
	}
	agent := "MESOS_AGENT_ENDPOINT=127.0.0.1:5051"
	users := map[string]*process{
		"fd 3":         start(t, "", nil, shell("exec 3>>"+volume+"/file; echo ready; read x")...),
		"fd 4":         start(t, "", nil, shell("exec 4<"+volume+"/sub; echo ready; read x")...),
		"fd 5":         start(t, "", env(agent), shell("exec 5<"+volume+"/file; echo ready; read x")...),
		"cwd":          start(t, "idle", in(volume+"/sub")),
		"map":          start(t, "map "+volume+"/file", nil),
		"deleted":      start(t, "deleted "+volume+"/gone", nil),
		"leaderless":   start(t, "leaderless "+volume+"/file", nil), // shown as a zombie, with a thread that goes on
		"sandbox link": start(t, "idle", env("MESOS_SANDBOX="+sandbox)),
	}
	elsewhere := "MESOS_AGENT_ENDPOINT=127.0.0.1:9999"
	others := map[string]*process{
		"sibling fd":                  start(t, "", nil, shell("exec 3>>"+other+"/file; echo ready; read x")...),
		"sibling cwd":                 start(t, "idle", in(other)),
		"no sandbox link":             start(t, "idle", env("MESOS_SANDBOX="+t.TempDir())),
		"other agent":                 start(t, "", env(elsewhere), shell("exec 3>>"+volume+"/file; echo ready; read x")...),
		"other agent, no environment": start(t, "", env(elsewhere), shell("exec 3>>"+volume+"/file; env -i sh -c 'echo ready; read x'; true")...),
	}
	f := New(Options{Limit: 10 * time.Second})
	target := Target{VolumeUID: "v", Path: volume, Verify: VerifyScan, Agent: "127.0.0.1:5051"}
	usage, err := f.Users(context.Background(), target)
	if err != nil {
		t.Fatal(err)
	}
	how := map[int]string{}
	for _, u := range usage[volume].Users {
		how[u.PID] = u.How
	}
	for name, p := range users {
		if h := how[p.Process.Pid]; h == "" || (h != name && name != "deleted" && name != "leaderless") {
			t.Errorf("%s: seen as %q", name, h)
		}
	}
	r := f.Run(context.Background(), target)[0]
	if !r.Fenced || r.Err != "" || len(r.Killed) != len(users) {
		t.Errorf("report %+v", r)
	}
	for name, p := range users {
		if !p.killed(time.Second) {
			t.Errorf("%s was not killed", name)
		}
	}
	for name, p := range others {
		if p.killed(0) {
			t.Errorf("%s was killed", name)
		}
	}
	t.Logf("took %v, %v", r.Took, r.Steps)
}

// A process that forks as fast as it can does not outrun the fence.
func TestFenceAgainstForks(t *testing.T) {
	volume, _ := tree(t)
	p := start(t, "", in(volume), shell("echo ready; while true; do (sleep 0.01) & sleep 0.005; done")...)
	r := New(Options{Limit: 10 * time.Second}).Run(context.Background(), Target{Path: volume, Verify: VerifyScan})[0]
	if !r.Fenced || !p.killed(time.Second) {
		t.Fatalf("report %+v", r)
	}
	if usage, err := New(Options{Limit: 20 * time.Second}).Users(context.Background(), Target{Path: volume}); err != nil || len(usage[volume].Users) > 0 {
		t.Fatalf("after the fence: %v %v", usage, err)
	}
}

// The fence is over in its time, and says that it could not verify, when it is not given enough; and what it cannot verify it does not call fenced.
func TestFenceWithoutProof(t *testing.T) {
	volume, _ := tree(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if r := New(Options{Limit: 20 * time.Second}).Run(ctx, Target{Path: volume, Verify: VerifyScan})[0]; r.Fenced || r.Err == "" {
		t.Errorf("with no time: %+v", r)
	}
	if r := New(Options{Limit: 20 * time.Second}).Run(context.Background(), Target{Path: volume, Verify: VerifySuperblock})[0]; r.Fenced {
		t.Errorf("without a look at the superblock: %+v", r)
	}
	if r := New(Options{Limit: 20 * time.Second}).Run(context.Background(), Target{Path: "relative", Verify: VerifyScan})[0]; r.Fenced {
		t.Errorf("with a bad path: %+v", r)
	}
	spared := start(t, "idle", in(volume))
	if r := New(Options{Limit: 20 * time.Second, Spare: []int{spared.Process.Pid}}).Run(context.Background(), Target{Path: volume, Verify: VerifyScan})[0]; r.Fenced || spared.killed(0) {
		t.Errorf("with a user that is spared: %+v", r)
	}
	if r := New(Options{Limit: 20 * time.Second}).Run(context.Background(), Target{Path: filepath.Join(volume, "not", "there"), Verify: VerifyScan})[0]; !r.Fenced {
		t.Errorf("of a path that does not exist: %+v", r)
	}
}

// In its own mount namespace a task sees the volume under another path; a copied namespace alone makes no user.
func TestHeavyFenceAcrossNamespaces(t *testing.T) {
	heavy.Require(t, heavy.Root)
	volume, other := tree(t)
	users := map[string]*process{
		"bind mount":     start(t, "pool "+volume+" "+other, nil),
		"detached mount": start(t, "pool "+volume+" "+other+" open", nil),
	}
	copied := start(t, "copy", nil)
	f := New(Options{Limit: 10 * time.Second})
	target := Target{Path: volume, Verify: VerifyScan}
	usage, err := f.Users(context.Background(), target)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", usage)
	r := f.Run(context.Background(), target)[0]
	if !r.Fenced {
		t.Errorf("report %+v", r)
	}
	for name, p := range users {
		if !p.killed(time.Second) {
			t.Errorf("%s was not killed", name)
		}
	}
	if copied.killed(0) {
		t.Error("the holder of a copied namespace was killed")
	}
}

// A step that hangs costs its time and its verdict, and no more.
func TestFenceWithHangingSteps(t *testing.T) {
	volume, _ := tree(t)
	user := start(t, "idle", in(volume))
	hang := make(chan struct{})
	defer close(hang)
	began := time.Now()
	r := New(Options{Limit: time.Second, Unmount: func(context.Context, Target) error { <-hang; return nil }}).
		Run(context.Background(), Target{Path: volume, Verify: VerifyScan})[0]
	if took := time.Since(began); r.Fenced || took > 10*time.Second {
		t.Errorf("after %v: %+v", took, r)
	}
	if !user.killed(time.Second) {
		t.Error("the user lives on")
	}
}
