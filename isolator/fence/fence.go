// Package fence stops whoever still writes to a managed mount when the node may not hold it any more: a pure deadline machine,
// the fence itself, and a small watchdog process that does it when the isolator is dead or stuck.
package fence

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
)

// How a target is verified.
const (
	VerifyScan       = "scan"       // nobody that this process may look at uses it
	VerifySuperblock = "superblock" // the file system is gone and its backing is flushed
)

// Target is one managed mount: what the fence has to free of users.
type Target struct {
	VolumeUID string       `json:"volume"`
	Ref       volume.Ref   `json:"ref"`
	Epoch     volume.Epoch `json:"epoch"`
	// Path is the directory or mount point that tasks get (by bind mount or link). It may not exist (yet).
	Path string `json:"path"`
	// Verify says what counts as proof.
	Verify string `json:"verify"`
}

// Process is a user of a target. Start distinguishes it from a later process with its id.
type Process struct {
	PID     int    `json:"pid"`
	Start   uint64 `json:"start"` // /proc/<pid>/stat, clock ticks since boot
	Command string `json:"command"`
	How     string `json:"how"` // "fd 3", "cwd", "root", "exe", "map"
}

// Usage is what a scan found.
type Usage struct {
	Users []Process `json:"users"`
	// Unchecked counts processes that this process may not look at (they belong to another user), Hung those that did not answer in time.
	Unchecked int `json:"unchecked"`
	Hung      int `json:"hung"`
}

// Report is what a fence did.
type Report struct {
	Target    Target        `json:"target"`
	Fenced    bool          `json:"fenced"` // verified as Target.Verify says
	Killed    []Process     `json:"killed,omitempty"`
	Unchecked int           `json:"unchecked,omitempty"`
	Steps     []StepResult  `json:"steps"`
	Took      time.Duration `json:"took"`
	Err       string        `json:"error,omitempty"`
}

// StepResult is the outcome of one step: "done", "nothing to do", "not here: …" or an error's text.
type StepResult struct {
	Step    string        `json:"step"`
	Outcome string        `json:"outcome"`
	Took    time.Duration `json:"took"`
}

// Options of a Fence. Zero values are good.
type Options struct {
	Log *zap.Logger
	// Spare lists processes that are never killed beside pid 1, this process and its ancestors' isolator.
	Spare []int
	// Limit is S, the bound of one fence. Default 1 s.
	Limit time.Duration
	// Unmount undoes the mount once its users are gone; nil where nothing is mounted (plain directories).
	Unmount func(ctx context.Context, t Target) error
	// Journal bars the target's epoch before anything is done; nil writes nothing.
	Journal func(t Target) error
}

// Fence frees targets of users.
type Fence struct{}

// New returns a Fence.
func New(o Options) *Fence { return &Fence{} }

// Users scans /proc for the users of targets, in one pass. Bounded by ctx.
func (f *Fence) Users(ctx context.Context, targets ...Target) (map[string]Usage, error) {
	return nil, fault.New(fault.Internal, "not built yet")
}

// Run fences targets in one go (one scan serves them all), within Limit, and reports on each.
func (f *Fence) Run(ctx context.Context, targets ...Target) []Report { return nil }

// State is the memory that isolator and watchdog share: the deadline in a mapped file, the managed mounts in a file beside it.
type State struct{}

// OpenState maps the state file at path (making it) for the isolator. Clock is unix.CLOCK_BOOTTIME or CLOCK_MONOTONIC.
func OpenState(path string, clock int) (*State, error) {
	return nil, fault.New(fault.Internal, "not built yet")
}

// SetDeadline hands generation and D to the watchdog.
func (s *State) SetDeadline(generation uint64, d time.Duration) {}

// Deadline gives what SetDeadline stored last on this boot, by whichever process; zeros on a new boot.
func (s *State) Deadline() (generation uint64, d time.Duration) { return 0, 0 }

// SetMounts replaces the list of managed mounts. The isolator calls it before each mount and after each unmount.
func (s *State) SetMounts(t []Target) error { return nil }

// Mounts gives the list.
func (s *State) Mounts() ([]Target, error) { return nil, nil }

// Close unmaps. The watchdog goes on.
func (s *State) Close() error { return nil }

// Drain tells the watchdog to end: nothing is managed any more.
func (s *State) Drain() {}

// KeepWatchdog starts `<argv…> --state FILE` in a session of its own and starts it again when it dies, until ctx ends; the watchdog itself
// goes on then until nothing is managed.
func KeepWatchdog(ctx context.Context, s *State, argv []string, log *zap.Logger) error {
	return fault.New(fault.Internal, "not built yet")
}

// WatchdogMain is the watchdog process: `isolator-watchdog --state FILE`, args without the verb. It returns the exit code.
func WatchdogMain(args []string) int { return 1 }
