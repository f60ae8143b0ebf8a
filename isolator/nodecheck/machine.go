package nodecheck

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/client"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

// watchdog: it must be there, and no pressure of memory or time, and no limit of the isolator's, may keep it from its work.
func (c *checker) watchdog() {
	var dog *process
	for _, p := range processes(c.o.Proc) {
		mine := c.status.Dir == "" || slices.Contains(p.args, filepath.Join(c.status.Dir, "watchdog")) // several nodes may be played on one machine
		if len(p.args) > 2 && p.args[1] == "isolator" && p.args[2] == "watchdog" && mine {
			dog = &p
			break
		}
	}
	if dog == nil {
		c.note("watchdog", Warning, "start the isolator without --no-watchdog, or the unit holdfast-watchdog with --watchdog-unit", "no watchdog process: nobody stops this node's tasks when the isolator is dead at its deadline, and its volumes are not taken over by themselves")
		return
	}
	var lacks []string
	if c.read(dog.pid, "oom_score_adj") != "-1000" {
		lacks = append(lacks, "may be killed when memory runs out")
	}
	if strings.Contains(c.read(dog.pid, "status"), "VmLck:\t       0 kB") {
		lacks = append(lacks, "may be paged out")
	}
	if mine := c.read(dog.pid, "cgroup"); mine != "" && mine == c.read(c.status.PID, "cgroup") && !rootGroup(mine) {
		lacks = append(lacks, "shares the isolator's control group, and what is done to that")
	}
	if len(lacks) > 0 {
		c.note("watchdog", Warning, "run it as root by the unit holdfast-watchdog.service, and the isolator with --watchdog-unit", "pid %d %s", dog.pid, strings.Join(lacks, "; it "))
		return
	}
	c.note("watchdog", OK, "", "a watchdog process runs, pid %d", dog.pid)
}

// deadMan: where one was asked for it must be armed.
func (c *checker) deadMan() {
	d := c.status.DeadMan
	switch {
	case d == nil: // none is asked for
	case !d.Armed:
		c.note("dead-man", Failed, "see that the kernel module of the machine's watchdog is loaded (softdog only with nowayout=1) and that nobody else has it open (systemd: RuntimeWatchdogSec)",
			"%s is not armed, the node's fence grade is %s: %s", d.Path, c.status.Grade, d.Because)
	default:
		c.note("dead-man", OK, "", "%s resets this machine when it is not fed for %v s", d.Path, d.TimeoutSeconds)
	}
}

func (c *checker) read(pid int, name string) string {
	raw, err := os.ReadFile(filepath.Join(c.o.Proc, strconv.Itoa(pid), name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}

// rootGroup tells whether all control groups of a process are the topmost: then there are none worth the name.
func rootGroup(groups string) bool {
	for line := range strings.Lines(groups) {
		if !strings.HasSuffix(strings.TrimSpace(line), ":/") {
			return false
		}
	}
	return true
}

// strays looks for mounts below the isolator's directory that belong to no volume of its.
func (c *checker) strays() {
	if c.status.Dir == "" {
		return
	}
	dir := filepath.Join(c.status.Dir, "mounts")
	all, err := mount.Under(dir)
	if err != nil {
		c.note("stale mounts", Skipped, "", "%v", err)
		return
	}
	var stray []string
	for _, m := range all {
		if m.Point != dir && !slices.ContainsFunc(c.status.Volumes, func(v client.VolumeStatus) bool { return v.Path == m.Point || len(v.Doing) > 0 }) {
			stray = append(stray, m.Point)
		}
	}
	if len(stray) > 0 {
		c.note("stale mounts", Failed, "restart the isolator: at its start it stops who uses them and takes them away", "mounted, and of no volume that the isolator knows: %s", strings.Join(stray, ", "))
		return
	}
	c.note("stale mounts", OK, "", "none in %s", dir)
}

// propagation: what the isolator mounts must appear where the agent makes containers.
func (c *checker) propagation() {
	if c.agent == nil {
		c.note("mounts", Skipped, "", "no Mesos agent runs here, whose view of the mounts could be compared")
		return
	}
	ours, err1 := os.Readlink(filepath.Join(c.o.Proc, fmt.Sprint(c.status.PID), "ns/mnt"))
	theirs, err2 := os.Readlink(filepath.Join(c.o.Proc, fmt.Sprint(c.agent.pid), "ns/mnt"))
	switch {
	case err1 != nil || err2 != nil:
		c.note("mounts", Skipped, "", "the mount namespaces of isolator and agent cannot be read: run this as root")
	case ours == theirs:
		c.note("mounts", OK, "", "isolator and agent (pid %d) have one mount namespace", c.agent.pid)
	case c.propagates():
		c.note("mounts", OK, "", "the agent (pid %d) has another mount namespace, and gets what is mounted below %s by shared propagation", c.agent.pid, c.status.Dir)
	default:
		c.note("mounts", Failed, "run both in the host's mount namespace (in systemd units: no PrivateMounts, PrivateTmp, ProtectSystem or MountFlags=slave), or bind-mount the isolator's directory into the agent's container with shared propagation",
			"the agent (pid %d) has another mount namespace than the isolator (pid %d) and does not see what it mounts", c.agent.pid, c.status.PID)
	}
}

// propagates tells whether the mount that holds the isolator's mount points is shared with the agent's namespace, or the agent's is its slave.
func (c *checker) propagates() bool {
	if c.status.Dir == "" {
		return false
	}
	ours := groupOf(c.read(c.status.PID, "mountinfo"), c.status.Dir, "shared:")
	theirs := c.read(c.agent.pid, "mountinfo")
	return ours != "" && (groupOf(theirs, c.status.Dir, "shared:") == ours || groupOf(theirs, c.status.Dir, "master:") == ours)
}

// groupOf gives the peer group of the deepest mount above a path.
func groupOf(mountinfo, path, tag string) string {
	deepest, group := -1, ""
	for line := range strings.Lines(mountinfo) {
		f := strings.Fields(line)
		if len(f) < 7 || f[4] != "/" && !under(path, f[4]) || len(f[4]) < deepest {
			continue
		}
		deepest, group = len(f[4]), ""
		for _, o := range f[6:] {
			if o == "-" {
				break
			}
			if v, ok := strings.CutPrefix(o, tag); ok {
				group = v
			}
		}
	}
	return group
}

// The least room for the journal: below the first nothing can be mounted soon, below the second it is time to look.
const (
	noRoom     = 4 << 20
	littleRoom = 256 << 20
)

// disk: a journal that cannot be written means no mounts.
func (c *checker) disk() {
	if c.status.Dir == "" {
		return
	}
	var st unix.Statfs_t
	if err := unix.Statfs(c.status.Dir, &st); err != nil {
		c.note("disk", Skipped, "", "%s: %v", c.status.Dir, err)
		return
	}
	free := int64(st.Bavail) * int64(st.Bsize)
	const mend = "make room on that file system: without a journal nothing is mounted (what is mounted can still be given back)"
	switch {
	case free < noRoom || st.Files > 0 && st.Ffree < 16:
		c.note("disk", Failed, mend, "%s has %s and %d inodes left", c.status.Dir, room(free), st.Ffree)
	case free < littleRoom:
		c.note("disk", Warning, mend, "%s has %s left", c.status.Dir, room(free))
	default:
		c.note("disk", OK, "", "%s left for the journal", room(free))
	}
}

// room rounds down to something that people read.
func room(n int64) volume.Bytes {
	b := volume.Bytes(n)
	for _, unit := range []volume.Bytes{volume.GiB, volume.MiB} {
		if b >= 4*unit {
			return b - b%unit
		}
	}
	return b
}

// clockSource: leases go by the rate of the machine's clock.
func (c *checker) clockSource() {
	raw, err := os.ReadFile(filepath.Join(c.o.Sys, "devices/system/clocksource/clocksource0/current_clocksource"))
	source := string(bytes.TrimSpace(raw))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.note("clock source", Skipped, "", "the kernel names none")
	case err != nil:
		c.note("clock source", Skipped, "", "%v", err)
	case strings.Contains(source, "jiffies"):
		c.note("clock source", Warning, "see in the kernel's log why it gave up its better clocks", "the kernel counts timer ticks (%s): its clock may go wrong by more than leases allow for", source)
	default:
		c.note("clock source", OK, "", "%s", source)
	}
}

// marker: without it, and without HOLDFAST_ISOLATOR in the agent's environment, dvdcli would mount by itself while the isolator is away, without claims.
func (c *checker) marker() {
	if c.o.Marker == "" {
		return
	}
	_, err := os.Stat(c.o.Marker)
	switch {
	case err == nil:
		c.note("marker", OK, "", "%s is there", c.o.Marker)
	case c.agent != nil && c.agent.env["HOLDFAST_ISOLATOR"] != "":
		c.note("marker", OK, "", "the agent's environment names the isolator")
	default:
		c.note("marker", Failed, "touch "+c.o.Marker, "%v: while the isolator is away, dvdcli would go to volume plugins by itself, without claims", err)
	}
}
