package dockertest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Rclone is `rclone serve docker`, a real plugin that mounts by FUSE, on a directory as its storage.
type Rclone struct {
	// Storage holds the volumes' content; Base is where they are mounted; Dir is searched for the socket, whose name is "rclone".
	Storage, Base, Dir string

	home string
	proc *exec.Cmd
}

// StartRclone runs one below home.
func StartRclone(home string) (*Rclone, error) {
	r := &Rclone{home: home, Storage: filepath.Join(home, "storage"), Base: filepath.Join(home, "base"), Dir: filepath.Join(home, "plugins")}
	for _, d := range []string{r.Storage, r.Base, r.Dir, filepath.Join(home, "cache")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	conf := fmt.Sprintf("[loc]\ntype = alias\nremote = %s\n", r.Storage)
	if err := os.WriteFile(filepath.Join(home, "conf"), []byte(conf), 0o600); err != nil {
		return nil, err
	}
	return r, r.Again()
}

// Again starts it after Kill. rclone 1.60 remembers in a file what was mounted and mounts it again at its start: where its dead mount is in the
// way it gives the volume up, and otherwise it hangs for ever before it listens. So the file is removed in the second case, as its users
// must; either way it knows no volume then.
func (r *Rclone) Again() error {
	if len(r.Mounts()) == 0 {
		os.Remove(filepath.Join(r.home, "cache", "docker-plugin.state"))
	}
	log, err := os.OpenFile(filepath.Join(r.home, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	socket := filepath.Join(r.Dir, "rclone.sock")
	os.Remove(socket) // so that the wait below sees the new one
	r.proc = exec.Command("rclone", "serve", "docker", "--config", filepath.Join(r.home, "conf"), "--base-dir", r.Base,
		"--cache-dir", filepath.Join(r.home, "cache"), "--socket-addr", socket, "--socket-gid", fmt.Sprint(os.Getgid()))
	r.proc.Stdout, r.proc.Stderr = log, log
	if err := r.proc.Start(); err != nil {
		return err
	}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("unix", socket); err == nil {
			return c.Close()
		}
	}
	raw, _ := os.ReadFile(log.Name())
	return fmt.Errorf("rclone does not listen: %s", raw)
}

// Kill ends it as SIGKILL does; its mounts and its socket stay.
func (r *Rclone) Kill() {
	_ = r.proc.Process.Kill()
	_ = r.proc.Wait()
}

// Recreate tells it of the volume again, behind the isolator's back, as an administrator does after it has forgotten.
func (r *Rclone) Recreate(name string) error {
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", filepath.Join(r.Dir, "rclone.sock"))
	}}}
	resp, err := c.Post("http://rclone/VolumeDriver.Create", "application/json", strings.NewReader(fmt.Sprintf(`{"Name":%q,"Opts":{"remote":"loc:%s"}}`, name, name)))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("create: status %d", resp.StatusCode)
	}
	return nil
}

// Pause stops it, or lets it go on.
func (r *Rclone) Pause(on bool) {
	sig := syscall.SIGCONT
	if on {
		sig = syscall.SIGSTOP
	}
	_ = r.proc.Process.Signal(sig)
}

// Mounts names what is mounted below Base.
func (r *Rclone) Mounts() []string {
	raw, _ := os.ReadFile("/proc/self/mountinfo")
	var out []string
	for _, line := range strings.Split(string(raw), "\n") {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], r.Base+"/") {
			out = append(out, f[4])
		}
	}
	return out
}

// Close kills it and takes away what is left of its mounts, which it names.
func (r *Rclone) Close() (leaked []string) {
	r.Kill()
	leaked = r.Mounts()
	for _, m := range leaked {
		_ = unix.Unmount(m, unix.MNT_DETACH)
	}
	return leaked
}

// Signal sends it a signal: one that is stopped hangs everybody who touches its mounts.
func (r *Rclone) Signal(s syscall.Signal) error { return r.proc.Process.Signal(s) }
