package isolatortest_test

import (
	"bufio"
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/client"
	"github.com/holdfast-io/holdfast/isolator/isolatortest"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// life is one volume and what Mesos, or a person, does to it. Its fields but those under mu belong to the goroutine of the round.
type life struct {
	r       *rack
	ref     volume.Ref
	granted bool // the framework grants it; otherwise the node claims it by itself
	rnd     *rand.Rand

	uid         string
	made        bool // it was surely created
	incarnation int
	total       int

	mu        sync.Mutex
	task      *exec.Cmd
	ended     chan struct{} // closed when the task has
	lines     int           // acknowledged
	disturbed bool          // this round may end the task: an unmount was asked for
	lapsed    bool          // and so may the lease, which will have run out
	cut       bool          // a caller was killed: what came of it is not known
	expect    string        // "mounted" or "" for not known
}

func (v *life) begin(rnd *rand.Rand) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.rnd, v.disturbed, v.lapsed, v.cut, v.expect = rnd, false, false, false, ""
}

// act is what happens to the volume in one round.
func (v *life) act() {
	v.pause(20)
	switch x := v.rnd.IntN(100); {
	case x < 25:
		v.mount(v.options())
	case x < 35: // two containers at once
		options := v.options()
		both(func() { v.mount(options) }, func() { v.mount(options) })
	case x < 50:
		v.leave()
		v.unmount(false)
	case x < 60: // the next epoch while the one before is dying
		v.leave()
		both(func() { v.unmount(false) }, func() { v.pause(10); v.mount(v.options()) })
	case x < 68:
		v.lateUnmount()
	case x < 76: // somebody uses it still
		v.disturb()
		v.unmount(false)
		v.stopTask()
	case x < 80 && v.granted:
		v.replace()
	case x < 84: // Mesos unmounts what it never mounted, twice
		v.leave()
		both(func() { v.unmount(false) }, func() { v.unmount(false) })
	case x < 90:
		v.mount(v.options())
		v.leave()
		v.unmount(false)
	}
}

func both(a, b func()) {
	done := make(chan struct{})
	go func() { defer close(done); a() }()
	b()
	<-done
}

func (v *life) pause(most int) {
	v.mu.Lock()
	d := time.Duration(v.rnd.IntN(most*1000)) * time.Microsecond
	v.mu.Unlock()
	time.Sleep(d)
}

func (v *life) chance(percent int) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.rnd.IntN(100) < percent
}

func (v *life) disturb() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.disturbed = true
}

// leave ends the task before an unmount, as Mesos does, mostly.
func (v *life) leave() {
	v.disturb()
	if v.chance(85) {
		v.stopTask()
	} else {
		go func() { time.Sleep(50 * time.Millisecond); v.stopTask() }()
	}
}

// options are the grant under which the framework lets the volume be mounted: a new one, or the one that is held.
func (v *life) options() []string {
	if !v.granted {
		return nil
	}
	c, err := v.r.auth.Claim(bg, v.uid)
	if err != nil {
		v.r.Errorf("%s: %v", v.ref, err)
		return nil
	}
	g := volume.Grant{VolumeUID: v.uid, Epoch: c.Epoch, Nonce: c.Nonce, Task: "t", MustExist: true}
	if c.State != lease.Held {
		if c.State == lease.Granted {
			_, _ = v.r.auth.Cancel(bg, v.uid, c.Epoch, c.Nonce)
		}
		g.Epoch, g.Nonce = c.Epoch+1, uuid.NewString()
		_, _ = v.r.auth.Grant(bg, lease.GrantArgs{VolumeUID: v.uid, Epoch: g.Epoch, Node: v.r.nodeUID(), Nonce: g.Nonce, Policy: softLease, Owner: "t"})
	}
	var out []string
	for k, val := range g.Encode(nil) {
		out = append(out, "--volumeopts="+k+"="+val)
	}
	slices.Sort(out)
	return out
}

// call runs dvdcli as Mesos does, in a process group of its own, and sometimes kills the whole group. done is false when it was killed.
func (v *life) call(stopped bool, args ...string) (out string, err error, done bool) {
	args = append(args, "--volumedriver="+v.ref.Driver, "--volumename="+v.ref.Name)
	cmd := exec.Command(v.r.dvdcli, args...)
	if stopped { // it has begun, and does nothing yet
		cmd = exec.Command("sh", append([]string{"-c", `kill -STOP $$; exec "$0" "$@"`, v.r.dvdcli}, args...)...)
	}
	cmd.Env = append(os.Environ(), client.SocketVariable+"="+v.r.socket)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		v.r.Errorf("%v", err)
		return "", err, true
	}
	if stopped {
		time.Sleep(20 * time.Millisecond)
		v.mount(v.options())
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGCONT)
	} else if v.chance(20) {
		v.pause(25)
		if syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) == nil {
			_ = cmd.Wait()
			v.mu.Lock()
			v.cut, v.expect = true, ""
			v.mu.Unlock()
			v.r.note("%s %s: caller killed", v.ref, args[0])
			v.r.count("caller")
			return "", nil, cmd.ProcessState.Success() && false
		}
	}
	err = cmd.Wait()
	v.r.note("%s %s: %q %v %s", v.ref, strings.Join(short(args), " "), strings.TrimSpace(stdout.String()), err, strings.TrimSpace(stderr.String()))
	return strings.TrimSpace(stdout.String()), err, true
}

func short(args []string) []string {
	var out []string
	for _, a := range args[:len(args)-2] {
		if !strings.Contains(a, "nonce") && !strings.Contains(a, "volume-id") && !strings.Contains(a, "must-exist") && !strings.Contains(a, "task") {
			out = append(out, a)
		}
	}
	return out
}

func (v *life) mount(options []string) {
	path, err, done := v.call(false, append([]string{"mount"}, options...)...)
	if !done || err != nil {
		return
	}
	v.mu.Lock()
	v.made = true
	if !v.cut && !v.disturbed {
		v.expect = "mounted"
	}
	v.mu.Unlock()
	v.r.count("mounted")
	v.startTask(path)
}

func (v *life) unmount(stopped bool) {
	v.mu.Lock()
	v.expect = ""
	v.mu.Unlock()
	v.call(stopped, "unmount")
	v.r.count("unmount")
}

// lateUnmount is an unmount that was started for an earlier mount and comes when the next is there already. That one must stay.
func (v *life) lateUnmount() {
	v.disturb()
	v.stopTask()
	v.unmount(false)
	if c, err := v.r.auth.ClaimByRef(bg, v.ref); err != nil || c.State == lease.Held {
		return
	}
	v.mu.Lock()
	v.disturbed = false
	v.mu.Unlock()
	v.call(true, "unmount")
	v.r.count("late unmount")
}

func (v *life) create() {
	v.uid, v.lines, v.made = newUID(), 0, false
	if _, err := v.r.auth.Create(bg, v.uid, v.ref, softLease, false); err != nil {
		v.r.Errorf("%s: %v", v.ref, err)
		return
	}
	v.r.eventuallyAsked(lease.Request{Kind: lease.RequestCreate, VolumeUID: v.uid, Ref: v.ref})
	v.made = true
}

// replace deletes the volume on a person's word and makes another of its name.
func (v *life) replace() {
	v.disturb()
	v.stopTask()
	v.unmount(false)
	old := v.uid
	if got := v.r.eventuallyAsked(lease.Request{Kind: lease.RequestRemove, VolumeUID: v.uid, Ref: v.ref}); got.State == lease.RequestFailed {
		v.r.note("%s: remove: %+v", v.ref, got)
		return // it is in use
	}
	if c, err := v.r.auth.Claim(bg, old); err != nil || !c.Tombstone {
		v.r.Errorf("%s: removed, and its claim is %+v %v", v.ref, c, err)
		return
	}
	v.r.count("replaced")
	v.create()
}

func (v *life) startTask(path string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.task != nil {
		select {
		case <-v.ended:
		default:
			return // it goes on
		}
	}
	v.incarnation++
	cmd := exec.Command(v.r.binary, isolatortest.TaskProgram, path, strconv.Itoa(v.lines), strconv.Itoa(v.incarnation))
	cmd.Dir = "/"
	out, err := cmd.StdoutPipe()
	if err != nil {
		v.r.Errorf("%v", err)
		return
	}
	if err := cmd.Start(); err != nil {
		v.r.Errorf("%v", err)
		return
	}
	v.task, v.ended = cmd, make(chan struct{})
	go v.listen(cmd, bufio.NewScanner(out), v.ended, path)
}

// listen takes what a task says.
func (v *life) listen(cmd *exec.Cmd, said *bufio.Scanner, ended chan struct{}, path string) {
	defer close(ended)
	for said.Scan() {
		word, rest, _ := strings.Cut(said.Text(), " ")
		switch word {
		case "ack", "have":
			n, _ := strconv.Atoi(rest)
			v.mu.Lock()
			v.lines = n
			if word == "ack" {
				v.total++
			}
			v.mu.Unlock()
		case "lost":
			v.r.Errorf("%s at %s: of %d lines there are %s", v.ref, path, v.lines, rest)
		default:
			v.r.note("%s: task: %s", v.ref, said.Text())
		}
	}
	_ = cmd.Wait()
	v.r.note("%s: task ended: %v", v.ref, cmd.ProcessState)
}

// stopTask kills the task and waits for its end.
func (v *life) stopTask() {
	v.mu.Lock()
	task, ended := v.task, v.ended
	v.mu.Unlock()
	if task == nil {
		return
	}
	_ = task.Process.Kill()
	<-ended
}

// running tells whether a task is there.
func (v *life) running() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.task == nil {
		return false
	}
	select {
	case <-v.ended:
		return false
	default:
		return true
	}
}

func containsArg(cmdline []byte, word string) bool {
	return slices.Contains(strings.Split(string(cmdline), "\x00"), word)
}

// eventuallyAsked is request for a machine whose isolator may be killed meanwhile: the request waits for the next one.
func (r *rack) eventuallyAsked(q lease.Request) (got lease.Request) {
	q.Op = uuid.NewString()
	if _, err := r.auth.PutRequest(bg, r.nodeUID(), q); err != nil {
		r.Errorf("%v", err)
		return
	}
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		all, err := r.auth.Requests(bg, r.nodeUID())
		if err != nil {
			continue
		}
		for _, x := range all {
			if x.Op == q.Op && x.State != lease.RequestPending {
				return x.Request
			}
		}
	}
	r.Errorf("request %s of %s is not answered", q.Kind, q.Ref)
	return got
}
