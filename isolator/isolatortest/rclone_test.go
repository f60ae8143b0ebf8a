package isolatortest_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/client"
	"github.com/holdfast-io/holdfast/isolator/driver/dockertest"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// remote is a machine with rclone behind its isolator and one volume of it.
type remote struct {
	*machine
	rclone *dockertest.Rclone
	uid    string
}

func newRemote(t *testing.T) *remote {
	t.Helper()
	heavy.Require(t, heavy.Root, heavy.Program("rclone"), heavy.Program("fusermount3"))
	m := newMachine(t, 0)
	home, err := os.MkdirTemp("/tmp", "hfr")
	if err != nil {
		t.Fatal(err)
	}
	r, err := dockertest.StartRclone(home)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.kill()
		if left := r.Close(); len(left) > 0 {
			t.Errorf("leaked mounts %v\n%s", left, m.log())
		}
		os.RemoveAll(home)
	})
	m.args = []string{"-plugin-dir", r.Dir}
	m.start("")
	out := &remote{machine: m, rclone: r}
	if _, err := m.client.Create(bg, client.CreateRequest{Driver: "rclone", Name: "v", Options: map[string]string{"remote": "loc:v"}}); err != nil {
		t.Fatal(err)
	}
	c, err := m.auth.ClaimByRef(bg, volume.Ref{Driver: "rclone", Name: "v"})
	if err != nil {
		t.Fatal(err)
	}
	out.uid = c.VolumeUID
	return out
}

func (r *remote) mount() (string, error) {
	return r.client.Mount(bg, client.MountRequest{Driver: "rclone", Name: "v"})
}

// mounted is mount where it must work, and writes a file through it.
func (r *remote) mounted(file string) string {
	r.Helper()
	path, err := r.mount()
	if err != nil {
		r.Fatalf("mount: %v\n%s", err, r.log())
	}
	if err := os.WriteFile(filepath.Join(path, file), []byte("kept"), 0o644); err != nil {
		r.Fatal(err)
	}
	return path
}

// released unmounts and looks that the claim is free and nothing is mounted, within the limits that a caller may expect.
func (r *remote) released(files ...string) {
	r.Helper()
	begun := time.Now()
	if _, err := r.client.Unmount(bg, client.UnmountRequest{Driver: "rclone", Name: "v"}); err != nil {
		r.Fatalf("unmount: %v\n%s", err, r.log())
	}
	if took := time.Since(begun); took > 10*time.Second {
		r.Errorf("unmount took %s", took)
	}
	r.eventually("the claim is free and nothing is mounted", func() bool {
		return r.claim(r.uid).State == lease.Free && len(r.rclone.Mounts()) == 0
	})
	for _, f := range files {
		if _, err := os.Stat(filepath.Join(r.rclone.Storage, "v", f)); err != nil {
			r.Errorf("lost: %v", err)
		}
	}
}

func (r *remote) again() {
	r.Helper()
	if err := r.rclone.Again(); err != nil {
		r.Fatal(err)
	}
}

// forgotten looks that a volume which the plugin has forgotten is not made anew, and makes the plugin know it again.
func (r *remote) forgotten() {
	r.Helper()
	if _, err := r.mount(); !fault.Is(err, fault.NotFound) {
		r.Errorf("a volume that the plugin has forgotten: %v", err)
	}
	if c := r.claim(r.uid); c.State != lease.Free {
		r.Errorf("claim %+v", c)
	}
	if err := r.rclone.Recreate("v"); err != nil {
		r.Fatal(err)
	}
}

// A real plugin is killed and restarted under use, in every order.
func TestHeavyRclone(t *testing.T) {
	r := newRemote(t)
	path := r.mounted("a")
	if again, err := r.mount(); err != nil || again != path {
		t.Errorf("Mesos mounts again: %q %v", again, err)
	}
	r.released("a")

	// Killed in use: nothing can be flushed or asked any more, and the dead mount must go all the same.
	r.mounted("b")
	r.rclone.Kill()
	if _, err := r.mount(); err == nil {
		t.Error("a dead mount was given to a container")
	}
	r.released("a", "b")

	// Restarted, it has forgotten the volume; nothing is made in its place.
	r.again()
	r.forgotten()
	r.mounted("c")
	r.released("a", "b", "c")

	// Killed in use and restarted beside its dead mount: it says of mount and volume that it knows neither.
	r.mounted("d")
	r.rclone.Kill()
	r.again()
	r.released("d")
	r.forgotten()
	r.mounted("e")
	r.released("a", "b", "c", "d", "e")
}

// Plugin and isolator die together; the isolator comes back first, or with the plugin.
func TestHeavyRcloneAndIsolatorKilled(t *testing.T) {
	r := newRemote(t)
	r.mounted("a")
	r.kill()
	r.rclone.Kill()
	r.start("")
	r.eventually("recovery gives the dead volume back", func() bool {
		return r.claim(r.uid).State == lease.Free && len(r.rclone.Mounts()) == 0
	})
	r.again()
	r.forgotten()
	r.mounted("b")
	// The isolator alone: what is mounted is held and stays.
	epoch := r.claim(r.uid).Epoch
	r.kill()
	r.start("")
	if c := r.claim(r.uid); c.State != lease.Held || c.Epoch != epoch || len(r.rclone.Mounts()) != 1 {
		t.Errorf("claim %+v, mounts %v after the isolator's restart", c, r.rclone.Mounts())
	}
	r.released("a", "b")
}

// A FUSE server that is stopped answers no stat, even of a process that is being killed. The isolator must go on, and say what it waits for.
func TestHeavyRcloneStopped(t *testing.T) {
	r := newRemote(t)
	r.mounted("a")
	r.rclone.Pause(true)
	defer r.rclone.Pause(false)
	begun := time.Now()
	outcome, err := r.client.Unmount(bg, client.UnmountRequest{Driver: "rclone", Name: "v"})
	if err == nil && outcome != "retrying" {
		t.Errorf("unmounted what does not answer: %s", outcome)
	}
	if took := time.Since(begun); took > 15*time.Second {
		t.Errorf("it took %s", took)
	}
	if c := r.claim(r.uid); c.State != lease.Held {
		t.Errorf("claim of a volume that is mounted still: %+v", c)
	}
	if st, err := r.client.Status(bg); err != nil || !st.Ready {
		t.Errorf("the isolator is not well: %+v %v", st, err)
	}
	if _, err := r.client.Create(bg, client.CreateRequest{Driver: "pool", Name: "other"}); err != nil {
		t.Errorf("another driver is held up: %v", err)
	}
	r.rclone.Pause(false)
	r.eventually("it is unmounted once the server answers", func() bool {
		return r.claim(r.uid).State == lease.Free && len(r.rclone.Mounts()) == 0
	})
}
