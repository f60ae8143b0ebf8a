package isolatortest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/isolator"
	"github.com/holdfast-io/holdfast/isolator/client"
	"github.com/holdfast-io/holdfast/isolator/fence"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// newOperationMachine has a pool of xfs images on xfs, which can do everything, and a repository for backups.
func newOperationMachine(t testing.TB) *machine {
	m := newMachine(t, 0)
	image := filepath.Join(m.dir, "disk")
	for _, argv := range [][]string{{"truncate", "-s", "4G", image}, {"mkfs.xfs", "-q", image}, {"mount", "-o", "loop", image, m.pool}} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v %s", argv, err, out)
		}
	}
	t.Cleanup(func() {
		m.kill()
		for _, d := range m.devices("/") {
			t.Errorf("leaked %s", d)
		}
		if out, err := exec.Command("umount", m.pool).CombinedOutput(); err != nil {
			t.Errorf("umount: %v %s", err, out)
			_ = exec.Command("umount", "-l", m.pool).Run()
		}
	})
	m.poolFlags = []string{"-pool-backend", "loop", "-pool-fs", "xfs", "-pool-size", fmt.Sprint(320 << 20)}
	config := filepath.Join(m.dir, "backup.yaml")
	for name, text := range map[string]string{
		filepath.Join(m.dir, "password"): "pw\n",
		config:                           fmt.Sprintf("repositories:\n- {name: repo, url: %s/repo, password-file: %s/password, create: true}\n", m.dir, m.dir),
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m.args = append(m.args, "-backup-config", config)
	return m
}

// operate asks for an operation and gives its end; false when the isolator has died meanwhile.
func (m *machine) operate(r client.OperationRequest) (client.Operation, bool) {
	m.Helper()
	r.Driver = "pool"
	ctx, cancel := context.WithTimeout(bg, 30*time.Second)
	defer cancel()
	o, err := m.client.Operate(ctx, r, nil)
	if m.died() || client.IsBroken(err) || errors.Is(err, client.ErrNotRunning) {
		<-m.end
		return o, false
	}
	if err != nil {
		m.Fatalf("%s: %v\n%s", r.Kind, err, m.log())
	}
	return o, true
}

// writable tells whether the volume that is mounted at path takes a write: a frozen one does not.
func (m *machine) writable(path string) {
	m.Helper()
	wrote := make(chan error, 1)
	go func() { wrote <- os.WriteFile(filepath.Join(path, "alive"), []byte("alive"), 0o644) }()
	select {
	case err := <-wrote:
		if err != nil {
			m.Errorf("write: %v", err)
		}
	case <-time.After(10 * time.Second):
		_ = fence.Thaw(path)
		watchdog, _ := os.ReadFile(filepath.Join(m.node, "watchdog.log"))
		m.Fatalf("the file system stays frozen\n%s\nthe watchdog says:\n%s", m.log(), watchdog)
	}
}

// TestHeavyKillOperations kills the isolator at each step of an operation; the next one finishes it, nothing stays frozen, held or half made.
func TestHeavyKillOperations(t *testing.T) {
	heavy.Require(t, heavy.Root, heavy.Program("mkfs.xfs"), heavy.Program("restic"))
	for _, step := range isolator.OperationSteps {
		t.Run(step, func(t *testing.T) {
			m := newOperationMachine(t)
			m.start("")
			uid := m.newVolume()
			if r, _ := m.request(lease.Request{Kind: lease.RequestCreate, VolumeUID: uid, Ref: ref}); r.Outcome != "created" {
				t.Fatalf("%+v", r)
			}
			path, err := m.client.Mount(bg, client.MountRequest{Driver: "pool", Name: "v", Options: m.grant(uid)})
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(path, "kept"), []byte("kept"), 0o644); err != nil {
				t.Fatal(err)
			}
			m.kill()
			m.start(step)
			if !m.operations(step) {
				t.Fatalf("it never came to %s", step)
			}
			if strings.HasPrefix(step, "freeze") || strings.HasPrefix(step, "snapshot") {
				m.writable(path)
			}
			m.start("")
			m.writable(path)
			m.ended()
			m.operations("") // all of it once more, now to the end
			m.tidy(uid)
		})
	}
}

// operations does everything that a step may lie in; true when the isolator has died on the way.
func (m *machine) operations(step string) bool {
	m.Helper()
	restic := strings.HasPrefix(step, "backup") || strings.HasPrefix(step, "restore")
	for _, r := range []client.OperationRequest{
		{Kind: client.OpSnapshot, Name: "v", Snapshot: "s1"},
		{Kind: client.OpClone, Name: "v", Snapshot: "s1", Target: &client.TargetVolume{Name: "c"}},
		{Kind: client.OpSnapshot, Name: "c", Snapshot: "s1"},
		{Kind: client.OpResize, Name: "v", SizeBytes: 400 << 20},
		{Kind: client.OpBackup, Name: "v", Repository: "repo"},
		{Kind: client.OpRestore, Name: "v", Repository: "repo", Backup: "latest", Target: &client.TargetVolume{Name: "r"}},
		{Kind: client.OpUndelete, Name: "c"},
	} {
		if !restic && r.Repository != "" || restic && r.Kind != client.OpBackup && r.Kind != client.OpRestore {
			continue
		}
		if step == "" && m.made(r) {
			continue
		}
		if step == "" && r.Kind == client.OpSnapshot && r.Name == "c" {
			r.Snapshot = "s2" // s1 is of the uid that c had before it came back from the bin
		}
		if r.Kind == client.OpUndelete {
			if err := m.client.Remove(bg, client.VolumeRequest{Driver: "pool", Name: "c"}); err != nil {
				m.Fatal(err)
			}
		}
		if _, ok := m.operate(r); !ok {
			return true
		}
	}
	return m.died()
}

// made tells whether an operation's new volume is there already.
func (m *machine) made(r client.OperationRequest) bool {
	if r.Target == nil {
		return false
	}
	_, err := m.client.Get(bg, client.VolumeRequest{Driver: "pool", Name: r.Target.Name})
	return err == nil
}

// ended waits until what was under way is done.
func (m *machine) ended() {
	m.Helper()
	all, err := m.client.Operations(bg)
	if err != nil {
		m.Fatal(err)
	}
	for _, o := range all {
		o, err := m.client.Operation(bg, o.ID, 30*time.Second)
		if err != nil || o.State != client.OperationDone {
			m.Errorf("after the restart: %+v, %v\n%s", o, err, m.log())
		}
	}
}

// tidy looks at what was made, and removes everything.
func (m *machine) tidy(uid string) {
	m.Helper()
	if _, err := m.client.Unmount(bg, client.UnmountRequest{Driver: "pool", Name: "v"}); err != nil {
		m.Error(err)
	}
	all, err := m.client.List(bg, "pool")
	if err != nil {
		m.Fatal(err)
	}
	for _, v := range all {
		m.eventually("the claim of "+v.Name+" is free", func() bool { return m.claim(v.UID).State == lease.Free })
		path, err := m.client.Mount(bg, client.MountRequest{Driver: "pool", Name: v.Name})
		if err != nil {
			m.Fatal(err)
		}
		if raw, err := os.ReadFile(filepath.Join(path, "kept")); string(raw) != "kept" {
			m.Errorf("volume %s has %q, %v", v.Name, raw, err)
		}
		if _, err := m.client.Unmount(bg, client.UnmountRequest{Driver: "pool", Name: v.Name}); err != nil {
			m.Error(err)
		}
		o, ok := m.operate(client.OperationRequest{Kind: client.OpSnapshots, Name: v.Name})
		for _, s := range o.Result.Snapshots {
			if ok && s.Name != "s1" && s.Name != "s2" {
				m.Errorf("snapshot %s of %s is left over", s.Name, v.Name)
			}
		}
		if err := m.client.Remove(bg, client.VolumeRequest{Driver: "pool", Name: v.Name}); err != nil {
			m.Error(err)
		}
	}
	if len(all) < 1 || len(m.mounts()) > 0 {
		m.Errorf("%d volumes; mounts left: %v", len(all), m.mounts())
	}
}
