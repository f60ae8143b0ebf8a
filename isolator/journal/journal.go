// Package journal is the isolator's memory: what it is about to do and has done to each volume, so that a
// process that is killed at any instruction leaves behind what the next one needs to finish, undo or report.
//
// A journal is a directory with two files. `log` has one record a line: eight hex digits of CRC-32C, a space,
// JSON. `snapshot` is one such line with the state of all volumes up to a sequence number; when the log has grown, a new
// snapshot is put in place by rename and the log is emptied. Every record carries the volume's whole state after
// the step (its after-image), so that reading back is: the last record of each volume wins.
//
// An intent is on disk (fdatasync) before Append returns and before its effect is asked for. That an effect is done is
// written without waiting: losing it costs a look at what is really there.
//
// A torn last line (the crash came while it was written) is cut off. Any other line that does not check out is
// damage: it is counted and named, and never silently dropped.
package journal

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
)

// State says how far a step is.
type State string

// The states of a step.
const (
	Intent  State = "intent"  // it may have been done or not
	Done    State = "done"    // it was done
	Unknown State = "unknown" // it was asked for and nobody knows what came of it
)

// Phase says where a volume stands on this node.
type Phase string

// The phases of a volume.
const (
	Known      Phase = "known"      // it exists and is not mounted here
	Mounting   Phase = "mounting"   // held, the driver has been or will be asked
	Mounted    Phase = "mounted"    // held and mounted
	Unmounting Phase = "unmounting" // held, on its way out
	Creating   Phase = "creating"
	Removing   Phase = "removing"
	Removed    Phase = "removed" // a person's wish; from here on the name is as good as new
)

// Volume is what this node knows of one volume.
type Volume struct {
	Ref        volume.Ref   `json:"ref"`
	UID        string       `json:"uid"`
	Phase      Phase        `json:"phase"`
	Epoch      volume.Epoch `json:"epoch,omitempty"`
	Nonce      string       `json:"nonce,omitempty"`
	Generation uint64       `json:"generation,omitempty"` // of the node's lease, when it was held
	Shared     bool         `json:"shared,omitempty"`
	Self       bool         `json:"self,omitempty"`    // claimed by this node itself, not granted by a framework
	Path       string       `json:"path,omitempty"`    // where it is mounted
	MountID    string       `json:"mountId,omitempty"` // what the driver knows the mount by
	Task       string       `json:"task,omitempty"`    // for display
	// Shown says that the mount appeared in mountinfo; without that the path is a plain directory.
	Shown bool `json:"shown,omitempty"`
	// Gone says that the driver's unmount was verified and only the claim is left to give back.
	Gone bool `json:"gone,omitempty"`
	// Owners are those who use the mount: "mesos" is one, however often it mounts.
	Owners map[string]time.Time `json:"owners,omitempty"`
	// MountedAt is the wall clock, for display; MountBoot the boot clock when the mount began, in nanoseconds, by which a late unmount is told.
	MountedAt time.Time `json:"mountedAt,omitzero"`
	MountBoot int64     `json:"mountBoot,omitempty"`
	BootID    string    `json:"bootId,omitempty"`
	// Mounter is the process that asked for the mount, as "pid@start".
	Mounter string `json:"mounter,omitempty"`
}

// Record is one step of one operation.
type Record struct {
	Seq   uint64 `json:"seq"`
	Op    string `json:"op"`   // mount, unmount, create, remove, fence, recover
	Step  string `json:"step"` // what within it
	State State  `json:"state"`
	Boot  int64  `json:"boottime"` // CLOCK_BOOTTIME in nanoseconds
	// Volume is the state of the volume once this step is in this state.
	Volume Volume `json:"volume"`
}

// Damage names what could not be read.
type Damage struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Why  string `json:"why"`
}

func (d Damage) String() string { return fmt.Sprintf("%s line %d: %s", d.File, d.Line, d.Why) }

// Journal is open for one process. Its methods may be called concurrently.
type Journal struct {
	dir string

	mu      sync.Mutex
	log     *os.File
	size    int64 // of what is good in the log
	lines   int
	seq     uint64
	volumes map[volume.Ref]Volume
	damage  []Damage
	broken  error // the log could not be brought back to a line's end
	closed  bool
	limit   int // lines in the log after which a snapshot is taken

	syncing  sync.Mutex // held by the one that syncs for all
	syncedTo int64
}

const (
	maxLine    = 1 << 20
	defaultLog = 4096
	lockWait   = time.Second
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Open reads the journal in dir, making it if there is none. A second process on the same directory is refused
// with Conflict. Damage is no error: see Damaged.
func Open(dir string) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "open journal")
	}
	f, err := os.OpenFile(filepath.Join(dir, "log"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "open journal")
	}
	if err := lock(f); err != nil {
		f.Close()
		return nil, fault.Wrap(fault.Conflict, err, "journal %s is in use by another isolator", dir)
	}
	j := &Journal{dir: dir, log: f, volumes: map[volume.Ref]Volume{}, limit: defaultLog}
	if err := j.load(); err != nil {
		f.Close()
		return nil, err
	}
	return j, nil
}

// lock waits a little: of an isolator that was just killed a child may linger that has not yet become the program it is to be.
func lock(f *os.File) error {
	for end := time.Now().Add(lockWait); ; time.Sleep(10 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(end) {
			return err
		}
	}
}

func (j *Journal) load() error {
	from, err := j.readSnapshot()
	if err != nil {
		return err
	}
	j.seq = from
	return j.readLog(from)
}

type snapshot struct {
	Seq     uint64   `json:"seq"`
	Volumes []Volume `json:"volumes"`
}

func (j *Journal) readSnapshot() (uint64, error) {
	name := filepath.Join(j.dir, "snapshot")
	raw, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fault.Wrap(fault.Unavailable, err, "read journal snapshot")
	}
	var s snapshot
	if err := decodeLine(bytes.TrimSuffix(raw, []byte("\n")), &s); err != nil {
		// It was put in place by rename after a sync, so this is no torn write.
		j.damage = append(j.damage, Damage{name, 1, err.Error()})
		return 0, keepAside(name)
	}
	for _, v := range s.Volumes {
		j.volumes[v.Ref] = v
	}
	return s.Seq, nil
}

func (j *Journal) readLog(from uint64) error {
	name := j.log.Name()
	r := bufio.NewReaderSize(j.log, 64<<10)
	var at int64
	var bad []Damage
	for line := 1; ; line++ {
		raw, err := readLine(r)
		if err == io.EOF && len(raw) == 0 {
			break
		}
		if err != nil && err != io.EOF {
			return fault.Wrap(fault.Unavailable, err, "read journal")
		}
		whole := err == nil
		var rec Record
		derr := decodeLine(raw, &rec)
		if !whole {
			break // torn: the crash came before its newline, so nobody has acted on it
		}
		at += int64(len(raw)) + 1
		if derr != nil {
			bad = append(bad, Damage{name, line, derr.Error()})
			continue
		}
		j.lines++
		j.size = at
		if rec.Seq <= from {
			continue // the snapshot has it: the crash came before the log was emptied
		}
		j.seq = rec.Seq
		j.volumes[rec.Volume.Ref] = rec.Volume
	}
	return j.settle(name, bad, at)
}

// settle cuts off a torn tail and keeps a damaged log aside before anything is written after it.
func (j *Journal) settle(name string, bad []Damage, end int64) error {
	j.size = end
	if err := j.log.Truncate(end); err != nil {
		return fault.Wrap(fault.Unavailable, err, "cut torn end of journal")
	}
	if _, err := j.log.Seek(end, io.SeekStart); err != nil {
		return fault.Wrap(fault.Unavailable, err, "open journal")
	}
	if len(bad) == 0 {
		return nil
	}
	j.damage = append(j.damage, bad...)
	if err := copyAside(name); err != nil {
		return err
	}
	return j.compact() // what is good goes on in a clean file
}

func readLine(r *bufio.Reader) ([]byte, error) {
	var out []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(out)+len(part) <= maxLine {
			out = append(out, part...)
		}
		if err == bufio.ErrBufferFull {
			continue
		}
		return bytes.TrimSuffix(out, []byte("\n")), err
	}
}

func encodeLine(v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	line := make([]byte, 0, len(raw)+10)
	line = fmt.Appendf(line, "%08x ", crc32.Checksum(raw, castagnoli))
	line = append(line, raw...)
	return append(line, '\n'), nil
}

func decodeLine(line []byte, v any) error {
	if len(line) < 10 || line[8] != ' ' {
		return errors.New("not a record")
	}
	if got := fmt.Sprintf("%08x", crc32.Checksum(line[9:], castagnoli)); got != string(line[:8]) {
		return fmt.Errorf("checksum is %s, the record says %.8q", got, line[:8])
	}
	return json.Unmarshal(line[9:], v)
}

// Append writes one record and gives its sequence number. An Intent is on disk when it returns; Done and Unknown are
// written but not waited for. The state that Volumes shows changes only when Append succeeds. Unavailable says that
// nothing was written (a full disk): the effect must not be asked for.
func (j *Journal) Append(op, step string, st State, v Volume) error {
	j.mu.Lock()
	if j.closed || j.broken != nil {
		err := j.broken
		j.mu.Unlock()
		return fault.Wrap(fault.Unavailable, firstError(err, os.ErrClosed), "journal %s %s", op, step)
	}
	rec := Record{Seq: j.seq + 1, Op: op, Step: step, State: st, Boot: bootTime(), Volume: v}
	line, err := encodeLine(rec)
	if err == nil && len(line) > maxLine {
		err = fmt.Errorf("a record of %d bytes is too large", len(line))
	}
	if err != nil {
		j.mu.Unlock()
		return fault.Wrap(fault.Internal, err, "journal %s %s", op, step)
	}
	if _, err := j.log.Write(line); err != nil {
		j.rewind()
		j.mu.Unlock()
		return fault.Wrap(fault.Unavailable, err, "journal %s of %s", op, v.Ref)
	}
	j.size += int64(len(line))
	end := j.size
	before, had := j.volumes[v.Ref]
	j.seq++
	j.lines++
	j.volumes[v.Ref] = v
	j.mu.Unlock()
	if st == Intent {
		if err := j.sync(end); err != nil {
			j.forget(rec.Seq, v.Ref, before, had)
			return fault.Wrap(fault.Unavailable, err, "journal %s of %s", op, v.Ref)
		}
	}
	return j.maybeCompact()
}

// Remember changes what Volume and Volumes show although it could not be written: only for a step whose effect must be had on a
// full disk too, and which recovery finds out by looking.
func (j *Journal) Remember(v Volume) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.volumes[v.Ref] = v
}

// rewind takes back half a line.
func (j *Journal) rewind() {
	if err := j.log.Truncate(j.size); err != nil {
		j.broken = err
		return
	}
	if _, err := j.log.Seek(j.size, io.SeekStart); err != nil {
		j.broken = err
	}
}

// forget takes a record back in memory whose sync failed. The file may still have it, so the journal is not used on.
func (j *Journal) forget(seq uint64, ref volume.Ref, before Volume, had bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.broken = errors.New("a sync of the journal failed")
	if j.seq != seq {
		return
	}
	if had {
		j.volumes[ref] = before
	} else {
		delete(j.volumes, ref)
	}
}

// sync makes the log durable up to end. One sync serves all who wait meanwhile.
func (j *Journal) sync(end int64) error {
	j.syncing.Lock()
	defer j.syncing.Unlock()
	j.mu.Lock()
	log, upTo, done := j.log, j.size, j.syncedTo >= end
	j.mu.Unlock()
	if done {
		return nil
	}
	if err := unix.Fdatasync(int(log.Fd())); err != nil {
		return err
	}
	j.mu.Lock()
	if upTo > j.syncedTo {
		j.syncedTo = upTo
	}
	j.mu.Unlock()
	return nil
}

func (j *Journal) maybeCompact() error {
	j.mu.Lock()
	need := j.lines > j.limit && j.lines > 4*len(j.volumes)
	j.mu.Unlock()
	if !need {
		return nil
	}
	j.syncing.Lock() // nobody may be told "synced" of a log that is being emptied
	defer j.syncing.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	// A snapshot that cannot be written leaves the log as it is, which is as good, only longer.
	_ = j.compact()
	return nil
}

// compact writes a snapshot and empties the log. mu is held, or nobody else has the journal yet.
func (j *Journal) compact() error {
	s := snapshot{Seq: j.seq}
	for _, v := range j.volumes {
		s.Volumes = append(s.Volumes, v)
	}
	line, err := encodeLine(s)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "encode journal snapshot")
	}
	if err := writeDurably(filepath.Join(j.dir, "snapshot"), line); err != nil {
		return fault.Wrap(fault.Unavailable, err, "write journal snapshot")
	}
	if err := j.log.Truncate(0); err != nil {
		return fault.Wrap(fault.Unavailable, err, "empty journal")
	}
	if _, err := j.log.Seek(0, io.SeekStart); err != nil {
		j.broken = err
		return fault.Wrap(fault.Unavailable, err, "empty journal")
	}
	j.size, j.lines, j.syncedTo = 0, 0, 0
	return nil
}

// Compact writes a snapshot now.
func (j *Journal) Compact() error {
	j.syncing.Lock()
	defer j.syncing.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.compact()
}

// Volumes gives a copy of the state of all volumes.
func (j *Journal) Volumes() []Volume {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := make([]Volume, 0, len(j.volumes))
	for _, v := range j.volumes {
		out = append(out, v)
	}
	return out
}

// Volume gives the state of one volume.
func (j *Journal) Volume(ref volume.Ref) (Volume, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	v, ok := j.volumes[ref]
	return v, ok
}

// Damaged names what could not be read when the journal was opened. The damaged file is kept beside the journal.
func (j *Journal) Damaged() []Damage { return j.damage }

// Healthy is nil while the journal takes records.
func (j *Journal) Healthy() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.broken
}

// Close syncs and closes.
func (j *Journal) Close() error {
	j.syncing.Lock()
	defer j.syncing.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil
	}
	j.closed = true
	err := unix.Fdatasync(int(j.log.Fd()))
	return firstError(err, j.log.Close())
}

func writeDurably(name string, content []byte) error {
	tmp := name + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = firstError(err, f.Sync())
	err = firstError(err, f.Close())
	if err == nil {
		err = os.Rename(tmp, name)
	}
	if err != nil {
		os.Remove(tmp)
		return err
	}
	d, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func asideName(name string) string {
	return fmt.Sprintf("%s.damaged-%s", name, time.Now().UTC().Format("20060102T150405.000"))
}

func keepAside(name string) error {
	return fault.Wrap(fault.Unavailable, os.Rename(name, asideName(name)), "keep damaged journal aside")
}

func copyAside(name string) error {
	raw, err := os.ReadFile(name)
	if err == nil {
		err = writeDurably(asideName(name), raw)
	}
	return fault.Wrap(fault.Unavailable, err, "keep damaged journal aside")
}

func bootTime() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return ts.Nano()
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
