package fence

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/holdfast-io/holdfast/internal/heavy"
)

func TestContainerPath(t *testing.T) {
	id, hex := "0a4f2a3c-7d5e-4a57-9d3a-1b2c3d4e5f60", strings.Repeat("0123456789abcdef", 4)
	for path, want := range map[string]string{
		"/mesos/" + id: "/mesos/" + id,
		"/mesos/" + id + "/mesos/" + id + "/deeper": "/mesos/" + id + "/mesos/" + id,
		"/docker/" + hex:                           "/docker/" + hex,
		"/system.slice/docker-" + hex + ".scope":   "/system.slice/docker-" + hex + ".scope",
		"/user.slice/user-0.slice/session-1.scope": "",
		"/system.slice/ssh.service":                "",
		"/":                                        "",
		"/mesos":                                   "",
		"/../mesos/" + id:                          "",
	} {
		if got, ok := containerPath(path); ok != (want != "") || ok && got != want {
			t.Errorf("%s: %q %t", path, got, ok)
		}
	}
}

// A container is stopped as a whole, also one that is frozen already, where killing alone has no effect; who is in no container's group but a service's is killed
// only if he uses the volume.
func TestHeavyFenceStopsContainer(t *testing.T) {
	heavy.Require(t, heavy.Root)
	ran := 0
	for _, unified := range []bool{false, true} {
		for _, frozen := range []bool{false, true} {
			mount, ok := fenceOf().hierarchy(unified)
			if !ok {
				continue
			}
			ran++
			t.Run(map[bool]string{false: "v1", true: "v2"}[unified]+map[bool]string{false: "", true: "/frozen"}[frozen], func(t *testing.T) { fencesContainer(t, mount, unified, frozen) })
		}
	}
	if ran == 0 {
		t.Fatal("there is neither a freezer of cgroup v1 nor cgroup v2 on this machine")
	}
}

func fencesContainer(t *testing.T, mount string, unified, frozen bool) {
	volume, _ := tree(t)
	root := filepath.Join(mount, "holdfast-test-"+uuid.NewString()[:8])
	container := group{filepath.Join(root, uuid.NewString()), unified}
	service := group{filepath.Join(root, "some.service"), unified}
	for _, g := range []group{container, service} {
		if err := os.MkdirAll(g.dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if !container.able() {
		t.Skipf("%s has no freezer here", mount)
	}
	put := func(g group, p *process) *process {
		if err := os.WriteFile(g.file("cgroup.procs"), []byte(strconv.Itoa(p.Process.Pid)), 0); err != nil {
			t.Fatal(err)
		}
		return p
	}
	writer := put(container, start(t, "", nil, shell("exec 3>>"+volume+"/file; echo ready; while true; do echo x >&3; done")...))
	forker := put(container, start(t, "", nil, shell("echo ready; while true; do (sleep 0.01) & sleep 0.001; done")...))
	user := put(service, start(t, "idle", in(volume)))
	bystander := put(service, start(t, "idle", nil))
	t.Cleanup(func() {
		_ = container.freeze(context.Background(), false)
		for _, g := range []group{container, service} {
			pids, _ := g.members()
			for _, pid := range pids {
				if p, err := os.FindProcess(pid); err == nil {
					_ = p.Kill()
				}
			}
		}
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			_, _ = os.Remove(container.dir), os.Remove(service.dir)
			if os.Remove(root) == nil {
				return
			}
		}
		t.Errorf("%s is left behind", root)
	})
	if frozen {
		if err := container.freeze(context.Background(), true); err != nil {
			t.Fatal(err)
		}
	}
	r := fenceOf().Run(context.Background(), Target{Path: volume, Verify: VerifyScan})[0]
	t.Logf("%v %+v", r.Took, r.Steps)
	if !r.Fenced {
		t.Errorf("report %+v", r)
	}
	for name, p := range map[string]*process{"writer": writer, "forker": forker, "user in a service": user} {
		if !p.killed(time.Second) {
			t.Errorf("%s was not killed", name)
		}
	}
	if bystander.killed(0) {
		t.Error("the bystander in the service was killed")
	}
	if container.frozen() && !frozen {
		t.Error("the container was left frozen")
	}
	if pids, err := container.members(); err != nil || len(pids) > 0 {
		t.Errorf("left in the container: %v %v", pids, err)
	}
}
