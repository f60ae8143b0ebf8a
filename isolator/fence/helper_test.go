package fence

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary plays the other processes, too: the first word of HOLDFAST_FENCE_PART says which.
func TestMain(m *testing.M) {
	part := strings.Fields(os.Getenv("HOLDFAST_FENCE_PART"))
	if len(part) == 0 {
		os.Exit(m.Run())
	}
	if len(os.Args) > 2 && os.Args[1] == "watchdog" {
		os.Exit(WatchdogMain(os.Args[2:]))
	}
	if err := play(part[0], part[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func init() {
	if strings.HasPrefix(os.Getenv("HOLDFAST_FENCE_PART"), "leaderless") {
		runtime.LockOSThread() // main stays on the first thread
	}
}

// leaderless ends the first thread of the process and lives on in another, with a file open.
func leaderless(file string) error {
	if _, err := unix.Open(file, unix.O_RDWR, 0); err != nil {
		return err
	}
	go func() {
		for st, err := readStat("/proc", os.Getpid()); err != nil || st.state != 'Z'; st, err = readStat("/proc", os.Getpid()) {
			time.Sleep(time.Millisecond)
		}
		fmt.Println("ready")
		time.Sleep(time.Hour)
	}()
	time.Sleep(10 * time.Millisecond)
	_, _, errno := unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
	return errno
}

// play does its part, says "ready" and waits until its standard input ends or it is killed.
func play(part string, args []string) error {
	switch part {
	case "map":
		f, err := os.OpenFile(args[0], os.O_RDWR, 0)
		if err != nil {
			return err
		}
		if _, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
			return err
		}
		_ = f.Close()
	case "deleted":
		f, err := os.Create(args[0])
		if err != nil {
			return err
		}
		defer f.Close()
		if err := os.Remove(args[0]); err != nil {
			return err
		}
	case "isolator":
		if err := playIsolator(args[0], args[1]); err != nil {
			return err
		}
	case "pool": // a mount namespace of its own, with the volume bound into it
		if err := bindPrivately(args[0], args[1], len(args) > 2); err != nil {
			return err
		}
	case "copy": // a copied namespace, as a service has that was started with one
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return err
		}
	case "machine":
		if err := playMachine(args[0], args[1], args[2]); err != nil {
			return err
		}
	case "watchdog-unit":
		fmt.Println("ready")
		os.Exit(WatchdogMain([]string{"--stay", "--state", args[0]}))
	case "leaderless":
		return leaderless(args[0])
	case "idle":
	default:
		return fmt.Errorf("no part %q", part)
	}
	fmt.Println("ready")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// playIsolator manages one mount, with a deadline half a second away and a watchdog.
func playIsolator(state, path string) error {
	s, err := OpenState(state, unix.CLOCK_MONOTONIC)
	if err != nil {
		return err
	}
	s.SetDeadline(7, s.now()+500*time.Millisecond)
	if err := s.SetMounts(encoded(Target{VolumeUID: "v", Path: path, Verify: VerifyScan})); err != nil {
		return err
	}
	go func() { _ = KeepWatchdog(context.Background(), s, []string{os.Args[0], "watchdog"}, nil) }()
	for !s.WatchdogAlive() {
		time.Sleep(time.Millisecond)
	}
	return nil
}

func encoded(targets ...Target) []json.RawMessage {
	out := make([]json.RawMessage, len(targets))
	for i, t := range targets {
		out[i], _ = json.Marshal(t)
	}
	return out
}

func bindPrivately(from, to string, open bool) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if open {
		_, err := unix.Open(filepath.Join(to, "file"), unix.O_RDWR|unix.O_CREAT, 0o600)
		if err != nil {
			return err
		}
		return unix.Unmount(to, unix.MNT_DETACH) // the writer goes on, and no namespace shows the mount
	}
	return nil
}

// process is a child of the test.
type process struct {
	*exec.Cmd
	ended chan error
}

// start runs a command, waits for "ready" when it plays a part, and kills it at the end of the test.
func start(t *testing.T, part string, change func(*exec.Cmd), command ...string) *process {
	t.Helper()
	if part != "" {
		command = []string{os.Args[0]}
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "HOLDFAST_FENCE_PART="+part)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if change != nil {
		change(cmd)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		_ = cmd.Process.Kill()
		t.Fatalf("%v did not get ready: %q %v", command, line, err)
	}
	p := &process{cmd, make(chan error, 1)}
	go func() { p.ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = stdin.Close() })
	return p
}

// killed tells whether the process was killed by SIGKILL, now or within a moment.
func (p *process) killed(wait time.Duration) bool {
	select {
	case err := <-p.ended:
		p.ended <- err
		st, ok := p.ProcessState.Sys().(syscall.WaitStatus)
		return ok && st.Signaled() && st.Signal() == syscall.SIGKILL
	case <-time.After(wait):
		return false
	}
}

func shell(script string) []string { return []string{"sh", "-c", script} }
