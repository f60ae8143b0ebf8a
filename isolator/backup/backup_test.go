package backup

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/operation"
)

func TestConfig(t *testing.T) {
	good := Repository{Name: "a", URL: "/srv/backup", PasswordFile: "/etc/pw"}
	for _, c := range []struct {
		change func(*Repository)
		want   string // "" is good
	}{
		{func(*Repository) {}, ""},
		{func(r *Repository) { r.Name = "" }, "name must be"},
		{func(r *Repository) { r.Name = "../x" }, "name must be"},
		{func(r *Repository) { r.URL = "" }, "url is missing"},
		{func(r *Repository) { r.URL = "relative/dir" }, "url must be a directory"},
		{func(r *Repository) { r.URL = "rest:http://x/" }, "url must be a directory"},
		{func(r *Repository) { r.URL = "/a b" }, "white space"},
		{func(r *Repository) { r.URL = "s3:https://minio:9000/bucket/path" }, ""},
		{func(r *Repository) { r.URL = "s3:https://key:secret@minio/bucket" }, "no credentials"},
		{func(r *Repository) { r.URL = "s3:https://minio" }, "bucket"},
		{func(r *Repository) { r.URL = "sftp:u@h:/p" }, "sftp needs ssh"},
		{func(r *Repository) { r.URL = "sftp:u@h:/p"; r.SSH = &SSH{KeyFile: "/k", KnownHostsFile: "/n"} }, ""},
		{func(r *Repository) {
			r.URL = "sftp:-oProxyCommand=x:/p"
			r.SSH = &SSH{KeyFile: "/k", KnownHostsFile: "/n"}
		}, "sftp:user@host"},
		{func(r *Repository) { r.URL = "sftp:u@h:/p"; r.SSH = &SSH{KeyFile: "/k 'x", KnownHostsFile: "/n"} }, "key-file"},
		{func(r *Repository) { r.PasswordFile = "pw" }, "password-file"},
		{func(r *Repository) { r.EnvFiles = map[string]string{"AWS_ACCESS_KEY_ID": "/k"} }, ""},
		{func(r *Repository) { r.EnvFiles = map[string]string{"LD_PRELOAD": "/k"} }, "may be set"},
		{func(r *Repository) { r.EnvFiles = map[string]string{"RESTIC_PASSWORD": "/k"} }, "may be set"},
		{func(r *Repository) { r.EnvFiles = map[string]string{"A": "k"} }, "absolute path"},
	} {
		r := good
		c.change(&r)
		err := Config{Repositories: []Repository{r}}.Check()
		if c.want == "" && err != nil || c.want != "" && (!fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v, want %q", r, err, c.want)
		}
	}
	if err := (Config{Repositories: []Repository{good, good}}).Check(); err == nil {
		t.Error("the same name twice is taken")
	}
	file := filepath.Join(t.TempDir(), "c.yaml")
	put(t, file, "repositories:\n- name: a\n  url: /srv\n  password-file: /p\n  pasword: x\n")
	if _, err := Read(file); !fault.Is(err, fault.Invalid) {
		t.Errorf("an unknown key: %v", err)
	}
	put(t, file, "repositories:\n- name: a\n  url: /srv\n  password-file: /p\n  create: true\n")
	if c, err := Read(file); err != nil || !c.Repositories[0].Create {
		t.Errorf("%+v %v", c, err)
	}
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestHeavyRepositories backs up to, and restores from, each kind of repository.
func TestHeavyRepositories(t *testing.T) {
	heavy.Require(t, heavy.Program("restic"))
	t.Run("directory", func(t *testing.T) {
		t.Parallel()
		exercise(t, Repository{URL: filepath.Join(t.TempDir(), "repo")}, true)
	})
	t.Run("sftp", func(t *testing.T) {
		t.Parallel()
		heavy.Require(t, heavy.Root, heavy.Program("/usr/sbin/sshd"))
		exercise(t, sftpServer(t), false)
	})
	t.Run("s3", func(t *testing.T) {
		t.Parallel()
		exercise(t, s3Server(t), false)
	})
}

// A volume that nobody has written to yet is backed up as well, and restored as nothing.
func TestHeavyEmptyVolume(t *testing.T) {
	heavy.Require(t, heavy.Program("restic"))
	dir, ctx := t.TempDir(), context.Background()
	r := Repository{Name: "repo", URL: filepath.Join(dir, "repo"), PasswordFile: filepath.Join(dir, "password"), Create: true}
	put(t, r.PasswordFile, "very secret\n")
	e, err := Open(Config{Repositories: []Repository{r}}, filepath.Join(dir, "cache"))
	if err != nil {
		t.Fatal(err)
	}
	if list, err := e.List(ctx, "repo", volume.Ref{}); err != nil || len(list) != 0 {
		t.Errorf("a repository that the first backup will create lists %+v %v", list, err)
	}
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	for _, d := range []string{from, to} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(from, 0o710); err != nil {
		t.Fatal(err)
	}
	quiet := func(string, int64, int64) {}
	spec := operation.BackupSpec{Op: "op-1", Path: from, Driver: "pool", Volume: "db", UID: "u1", Size: 1 << 30, Verify: true}
	b, err := e.Backup(ctx, "repo", spec, quiet)
	if err != nil || !b.Verified {
		t.Fatalf("backup of nothing: %+v %v", b, err)
	}
	if err := e.Restore(ctx, "repo", b.ID, to, true, quiet); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(to)
	if fi, serr := os.Stat(to); err != nil || len(left) != 0 || serr != nil || fi.Mode().Perm() != 0o710 {
		t.Errorf("restored %v, root %v %v %v", left, fi.Mode(), err, serr)
	}
	// The next one has something in it.
	put(t, filepath.Join(from, "file"), "text")
	spec.Op = "op-2"
	if b, err = e.Backup(ctx, "repo", spec, quiet); err != nil {
		t.Fatal(err)
	}
	if err := e.Restore(ctx, "repo", b.ID, to, true, quiet); err != nil {
		t.Fatal(err)
	}
	if raw, err := os.ReadFile(filepath.Join(to, "file")); err != nil || string(raw) != "text" {
		t.Errorf("restored %q %v", raw, err)
	}
}

// exercise is what every repository must bear; whole goes beyond backup and restore.
func exercise(t *testing.T, r Repository, whole bool) {
	dir, ctx := t.TempDir(), context.Background()
	r.Name, r.PasswordFile = "repo", filepath.Join(dir, "password")
	put(t, r.PasswordFile, "very secret\n")
	open := func(r Repository) *Engine {
		t.Helper()
		e, err := Open(Config{Repositories: []Repository{r}}, filepath.Join(dir, "cache"))
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	quiet := func(string, int64, int64) {}
	from := filepath.Join(dir, "one")
	if err := os.MkdirAll(filepath.Join(from, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	big := make([]byte, 3<<20)
	_, _ = rand.Read(big)
	put(t, filepath.Join(from, "big"), string(big))
	put(t, filepath.Join(from, "sub", "small"), "small")
	spec := operation.BackupSpec{Op: "op-1", Path: from, Driver: "pool", Volume: "db", UID: "u1", Snapshot: "s1", Cluster: "c", Size: 5 << 30, Verify: true}

	e := open(r)
	if whole {
		if _, err := e.Backup(ctx, "repo", spec, quiet); !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "create: true") {
			t.Fatalf("a repository that is not there: %v", err)
		}
	}
	spec.Verify = whole
	r.Create = true
	e = open(r)
	first, err := e.Backup(ctx, "repo", spec, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if first.Verified != whole || first.Files != 2 || first.TotalBytes < 3<<20 || first.Volume != "db" || first.UID != "u1" || first.VolumeSize != 5<<30 {
		t.Errorf("backup %+v", first)
	}
	spec.Verify = false
	if again, err := e.Backup(ctx, "repo", spec, quiet); err != nil || again.ID != first.ID {
		t.Errorf("the same operation again made %+v %v", again, err)
	}

	// The next is made from another place, and adds what has changed only.
	other := filepath.Join(dir, "elsewhere", "two")
	if out, err := exec.Command("sh", "-c", "mkdir -p "+filepath.Dir(other)+" && cp -a "+from+" "+other).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	put(t, filepath.Join(other, "new"), "new")
	if err := os.Chmod(other, 0o750); err != nil {
		t.Fatal(err)
	}
	spec.Op, spec.Path = "op-2", other
	second, err := e.Backup(ctx, "repo", spec, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if second.AddedBytes > 1<<20 {
		t.Errorf("the second backup added %d bytes", second.AddedBytes)
	}

	to := filepath.Join(dir, "restored")
	if err := os.Mkdir(to, 0o755); err != nil {
		t.Fatal(err)
	}
	latest, err := e.Find(ctx, "repo", "latest", volume.Ref{Driver: "pool", Name: "db"})
	if err != nil || latest.ID != second.ID {
		t.Fatalf("latest %+v %v", latest, err)
	}
	// Another engine: another node, without a cache.
	e2, err := Open(Config{Repositories: []Repository{r}}, filepath.Join(dir, "cache2"))
	if err != nil {
		t.Fatal(err)
	}
	if err := e2.Restore(ctx, "repo", latest.ID[:12], to, true, quiet); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("diff", "-r", other, to).CombinedOutput(); err != nil {
		t.Errorf("restored is not what was backed up: %s", out)
	}
	if fi, err := os.Stat(to); err != nil || fi.Mode().Perm() != 0o750 {
		t.Errorf("the root's mode is %v %v", fi.Mode(), err)
	}
	if !whole {
		return
	}
	all, err := e.List(ctx, "repo", volume.Ref{Driver: "pool", Name: "db"})
	if err != nil || len(all) != 2 || all[0].ID != second.ID {
		t.Fatalf("list %+v %v", all, err)
	}
	if none, err := e.List(ctx, "repo", volume.Ref{Driver: "pool", Name: "else"}); err != nil || len(none) != 0 {
		t.Errorf("list of another volume %+v %v", none, err)
	}
	if err := e.Restore(ctx, "repo", "0000000", to, false, quiet); !fault.Is(err, fault.NotFound) {
		t.Errorf("a backup that is not there: %v", err)
	}
	if err := e.Remove(ctx, "repo", first.ID); err != nil {
		t.Error(err)
	}
	if all, err := e.List(ctx, "repo", volume.Ref{}); err != nil || len(all) != 1 {
		t.Errorf("after the removal: %+v %v", all, err)
	}
	put(t, r.PasswordFile, "another\n")
	if _, err := e.List(ctx, "repo", volume.Ref{}); !fault.Is(err, fault.Denied) || strings.Contains(err.Error(), "very secret") {
		t.Errorf("a wrong password: %v", err)
	}
}

// A restic that was killed leaves its lock; the next one that needs the repository for itself gets it.
func TestHeavyStaleLock(t *testing.T) {
	heavy.Require(t, heavy.Program("restic"))
	dir, ctx := t.TempDir(), context.Background()
	r := Repository{Name: "repo", URL: filepath.Join(dir, "repo"), PasswordFile: filepath.Join(dir, "pw"), Create: true}
	put(t, r.PasswordFile, "pw")
	e, err := Open(Config{Repositories: []Repository{r}}, filepath.Join(dir, "cache"))
	if err != nil {
		t.Fatal(err)
	}
	quiet := func(string, int64, int64) {}
	data := filepath.Join(dir, "data")
	if err := os.Mkdir(data, 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(data, "f"), "x")
	spec := operation.BackupSpec{Op: "op-1", Path: data, Driver: "pool", Volume: "v"}
	b, err := e.Backup(ctx, "repo", spec, quiet)
	if err != nil {
		t.Fatal(err)
	}
	// A backup of standard input that never ends holds its lock.
	env, err := r.environment(filepath.Join(dir, "cache"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("restic", "backup", "--stdin")
	cmd.Env = env
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if locks, _ := os.ReadDir(filepath.Join(r.URL, "locks")); len(locks) > 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("restic takes no lock")
		}
	}
	short, _ := Open(Config{Repositories: []Repository{r}}, filepath.Join(dir, "cache"))
	short.lockWait = time.Millisecond
	if err := short.Remove(ctx, "repo", b.ID); !fault.Is(err, fault.Unavailable) {
		t.Errorf("the repository is locked by a process that lives: %v", err)
	}
	_ = cmd.Process.Signal(syscall.SIGKILL)
	in.Close()
	_ = cmd.Wait()
	if err := e.Remove(ctx, "repo", b.ID); err != nil {
		t.Errorf("the one that had the lock is dead: %v", err)
	}
}

// A cancelled restore stops its restic.
func TestHeavyCancel(t *testing.T) {
	heavy.Require(t, heavy.Program("sleep"))
	dir := t.TempDir()
	slow := filepath.Join(dir, "restic")
	put(t, slow, "#!/bin/sh\nexec sleep 60\n")
	if err := os.Chmod(slow, 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "pw"), "pw")
	e, err := Open(Config{Restic: slow, Repositories: []Repository{{Name: "repo", URL: dir, PasswordFile: filepath.Join(dir, "pw")}}}, filepath.Join(dir, "cache"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if _, err := e.List(ctx, "repo", volume.Ref{}); !fault.Is(err, fault.Unknown) {
		t.Errorf("%v", err)
	}
	if time.Since(begun) > 9*time.Second {
		t.Error("restic was not ended")
	}
}

// sftpServer is an sshd of our own on a port of its own.
func sftpServer(t *testing.T) Repository {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "hfsftp") // sshd wants a path that only root may write
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	hostKey, userKey := sshKey(t, filepath.Join(dir, "host")), sshKey(t, filepath.Join(dir, "user"))
	put(t, filepath.Join(dir, "authorized"), userKey)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	put(t, filepath.Join(dir, "config"), fmt.Sprintf("Port %d\nListenAddress 127.0.0.1\nHostKey %s/host\nAuthorizedKeysFile %s/authorized\nPidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin yes\nSubsystem sftp internal-sftp\n", port, dir, dir))
	put(t, filepath.Join(dir, "known"), fmt.Sprintf("[127.0.0.1]:%d %s", port, hostKey))
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", filepath.Join(dir, "config"))
	said := &tail{limit: 4096}
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatalf("sshd does not listen: %s", said)
		}
	}
	return Repository{URL: "sftp:root@127.0.0.1:" + filepath.Join(dir, "repo"),
		SSH: &SSH{KeyFile: filepath.Join(dir, "user"), KnownHostsFile: filepath.Join(dir, "known"), Port: port}}
}

// s3Server is gofakes3, in memory.
func s3Server(t *testing.T) Repository {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "fakes3")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Dir = filepath.Join("..", "..", "tools", "fakes3")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build fakes3: %v\n%s", err, out)
	}
	cmd := exec.Command(program)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	var addr string
	if _, err := fmt.Fscanln(out, &addr); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "id"), "id\n")
	put(t, filepath.Join(dir, "key"), "secret\n")
	return Repository{URL: "s3:http://" + addr + "/bucket/sub",
		EnvFiles: map[string]string{"AWS_ACCESS_KEY_ID": filepath.Join(dir, "id"), "AWS_SECRET_ACCESS_KEY": filepath.Join(dir, "key")}}
}

// sshKey makes a key pair at path and gives the public one.
func sshKey(t *testing.T, path string) string {
	t.Helper()
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	raw, err := os.ReadFile(path + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
