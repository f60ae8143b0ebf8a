package dockervolume

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/holdfast-io/holdfast/framework/embedded/process"
)

// dvdcli is a stand-in that logs its calls; volumes are directories beside it.
func dvdcli(t testing.TB) (dir, path string) {
	dir = t.TempDir()
	path = filepath.Join(dir, "dvdcli")
	script := `#!/bin/sh
echo "$1 ${3#--volumename=}" >> '` + dir + `/calls'
case $1:$3 in
mount:*broken) exit 3;;
mount:*multi) printf '/tmp\n/etc\n'; exit;;
mount:*file) echo /etc/passwd; exit;;
mount:*) test ! -e '` + dir + `/slow' || sleep 0.1; echo '` + dir + `';;
unmount:*) test ! -e '` + dir + `/stuck';;
esac
`
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir, path
}

func open(t testing.TB, state, path string) *Isolator {
	return New(Config{Dir: state, Dvdcli: path, MountLimit: 5 * time.Second, UnmountMax: 5 * time.Second, Table: process.NewTable(t.Name()), Logger: zaptest.NewLogger(t)})
}

func calls(dir string) string {
	data, _ := os.ReadFile(dir + "/calls")
	return strings.ReplaceAll(strings.TrimSpace(string(data)), "\n", "; ")
}

var all = context.Background()

func TestRecover(t *testing.T) {
	dir, path := dvdcli(t)
	state := t.TempDir()
	i := open(t, state, path)
	for _, c := range []struct{ container, volume string }{{"dead1", "a"}, {"dead2", "a"}, {"dead3", "b"}, {"alive", "b"}, {"alive2", "c"}} {
		if _, err := i.Prepare(all, c.container, []Volume{{Driver: "fake", Name: c.volume}}); err != nil {
			t.Fatal(err)
		}
	}
	if data, _ := os.ReadFile(state + "/alive/volumes"); string(data) != `{"volumes":[{"driver":"fake","name":"b"}]}` {
		t.Errorf("checkpoint %s", data)
	}
	os.MkdirAll(state+"/torn", 0o755)
	os.WriteFile(state+"/torn/volumes", []byte(`{"vol`), 0o644)
	os.Remove(dir + "/calls")
	os.WriteFile(dir+"/stuck", nil, 0o644)
	recover := func() *Isolator {
		next := open(t, state, path)
		next.Recover(func(c string) bool { return strings.HasPrefix(c, "alive") })(all)
		return next
	}
	recover() // fails: the checkpoint stays
	os.Remove(dir + "/stuck")
	i = recover()
	if got := calls(dir); got != "unmount a; unmount a" {
		t.Errorf("calls %q", got)
	}
	left, _ := os.ReadDir(state)
	if len(left) != 2 {
		t.Errorf("checkpoints left: %v", left)
	}
	i.Cleanup(all, "alive")
	i.Cleanup(all, "alive2")
	i.Cleanup(all, "alive2")
	if got := calls(dir); got != "unmount a; unmount a; unmount b; unmount c" {
		t.Errorf("calls %q", got)
	}
}

func TestForgetAfterReboot(t *testing.T) {
	dir, path := dvdcli(t)
	state := t.TempDir()
	i := open(t, state, path)
	i.Prepare(all, "c", []Volume{{Driver: "fake", Name: "a"}})
	i = open(t, state, path)
	if err := i.Forget(); err != nil {
		t.Fatal(err)
	}
	i.Recover(func(string) bool { return false })(all)
	if got := calls(dir); got != "mount a" {
		t.Errorf("calls %q", got)
	}
}

func TestMountPoint(t *testing.T) {
	dir, path := dvdcli(t)
	i := open(t, t.TempDir(), path)
	for name, want := range map[string]string{"broken": "Unexpected termination of the subprocess", "multi": "not one absolute path", "file": "not a directory"} {
		if _, err := i.Prepare(all, "c-"+name, []Volume{{Driver: "fake", Name: name}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
		i.Cleanup(all, "c-"+name)
	}
	points, err := i.Prepare(all, "ok", []Volume{{Driver: "fake", Name: "x"}, {Driver: "fake", Name: "y"}})
	if err != nil || len(points) != 2 || points[0] != dir {
		t.Errorf("%v %v", points, err)
	}
	for _, bad := range []Volume{{Name: "v"}, {Driver: "f", Name: "a\x00b"}, {Driver: "f", Name: "v", Options: []Option{{"k", "\x00"}}}} {
		if _, err := i.Prepare(all, "bad", []Volume{bad}); err == nil {
			t.Errorf("%+v is mounted", bad)
		}
	}
	if _, err := open(t, t.TempDir(), "").Prepare(all, "c", []Volume{{Driver: "f", Name: "v"}}); err == nil {
		t.Error("mounted without dvdcli")
	}
}

func TestMountsOfOneVolumeTakeTurns(t *testing.T) {
	dir, path := dvdcli(t)
	os.WriteFile(dir+"/slow", nil, 0o644)
	i := open(t, t.TempDir(), path)
	begun := time.Now()
	var wg sync.WaitGroup
	for _, c := range []string{"a", "b"} { // different volumes: side by side
		wg.Go(func() { i.Prepare(all, c, []Volume{{Driver: "fake", Name: c}}) })
	}
	wg.Wait()
	apart := time.Since(begun)
	if apart > 190*time.Millisecond {
		t.Logf("two volumes took %v: a busy machine", apart)
	}
	// The last user leaves while another one arrives: never an unmount under the new one.
	done := make(chan error, 1)
	go func() {
		_, err := i.Prepare(all, "a2", []Volume{{Driver: "fake", Name: "a"}})
		done <- err
	}()
	for end := time.Now().Add(20 * time.Second); strings.Count(calls(dir), "mount a") < 2 && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	i.Cleanup(all, "a")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := calls(dir); strings.Contains(got, "unmount") {
		t.Errorf("calls %q", got)
	}
}

func TestCancelledWait(t *testing.T) {
	dir, path := dvdcli(t)
	os.WriteFile(dir+"/slow", nil, 0o644)
	i := open(t, t.TempDir(), path)
	ctx, cancel := context.WithCancel(all)
	go func() {
		for calls(dir) == "" {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	if _, err := i.Prepare(ctx, "c", []Volume{{Driver: "fake", Name: "v"}}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := i.Cleanup(all, "c"); err != nil {
		t.Error(err)
	}
	if got := calls(dir); got != "mount v; unmount v" {
		t.Errorf("calls %q", got)
	}
}
