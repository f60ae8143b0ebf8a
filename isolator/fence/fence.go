// Package fence stops whoever still writes to a managed mount when this node may not hold it any more. It has three parts: the fence
// itself (find the users of a mount, kill them, verify that none is left), a pure machine that says what to do when, and a
// small watchdog process that does it when the isolator is dead or stuck.
//
// A user is a process with an open file, working directory, root directory, program or mapped file in the mount, wherever the
// mount appears in that process's own namespace; or one that lives in a mount namespace that was made around the mount; or one whose
// Mesos sandbox has a link to it. A mere holder of a copied namespace (every service that was started with one) is none.
package fence

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

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
	// Path is the directory or mount point that tasks get by bind mount or link: absolute and without links in it. It need
	// not exist (yet).
	Path string `json:"path"`
	// Verify says what counts as proof.
	Verify string `json:"verify"`
	// Backing is, with VerifySuperblock, the image file in which the volume's file system lies: absolute and clean.
	Backing string `json:"backing,omitempty"`
	// Agent is the host:port of the Mesos agent beside this isolator. Processes whose environment names another agent of this machine
	// (MESOS_AGENT_ENDPOINT) are that one's users, which only matters where several nodes are played by one machine. "" looks at
	// no environment.
	Agent string `json:"agent,omitempty"`
	// FrozenUntil is set while the file system at Path may be frozen for a snapshot: when, on the clock of the deadlines, the watchdog thaws it at the latest.
	FrozenUntil time.Duration `json:"frozenUntil,omitempty"`
}

// Process is a user of a target. Start distinguishes it from a later process with its id.
type Process struct {
	PID     int    `json:"pid"`
	Start   uint64 `json:"start"` // /proc/<pid>/stat, clock ticks since boot
	Command string `json:"command"`
	How     string `json:"how"` // "fd 3", "cwd", "root", "exe", "map", "mount namespace", "sandbox link"
}

// Usage is what a scan found.
type Usage struct {
	Users []Process `json:"users"`
	// Unchecked counts processes that this process may not look at (they belong to another user), Hung those that did not
	// answer in time.
	Unchecked int `json:"unchecked"`
	Hung      int `json:"hung"`
}

// Report is what a fence did.
type Report struct {
	Target    Target        `json:"target"`
	Fenced    bool          `json:"fenced"` // verified as Target.Verify says, and flushed
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
	// Spare lists processes that are never killed, beside process 1, this process and its ancestors.
	Spare []int
	// Limit is S, the bound of one fence. Default 1 s.
	Limit time.Duration
	// Unmount undoes the mount once its users are gone. With nil, the file system of a VerifySuperblock target is unmounted wherever it is, and a
	// directory stays where it is mounted, which is the caller's.
	Unmount func(ctx context.Context, t Target) error
	// Journal bars the target's epoch before anything is done; nil writes nothing.
	Journal func(t Target) error
	// Proc is where the proc file system is; "" means /proc.
	Proc string
}

// Fence frees targets of users. Its methods may be called concurrently.
type Fence struct {
	o     Options
	log   *zap.Logger
	steps []step

	mu       sync.Mutex
	looking  map[int]lookUnderWay     // by process id
	flushing map[string]chan struct{} // by target path
}

// New returns a Fence.
func New(o Options) *Fence {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Limit <= 0 {
		o.Limit = time.Second
	}
	if o.Proc == "" {
		o.Proc = "/proc"
	}
	return &Fence{o: o, log: o.Log, steps: steps(), looking: map[int]lookUnderWay{}, flushing: map[string]chan struct{}{}}
}

// Users scans /proc once for the users of targets; the result is by target path. Bounded by ctx, and by a fifth of a second for each
// process that does not answer. A device that somebody has made of a volume's image by hand, beside the mounted one, is not looked for; Run does. The error is Unavailable when /proc or the own mounts cannot be read.
func (f *Fence) Users(ctx context.Context, targets ...Target) (map[string]Usage, error) {
	return f.scanAs(ctx, targets, true)
}

// job is one target on its way through the steps.
type job struct {
	target Target
	report *Report
	failed bool
}

func (j *job) fail(err error) {
	j.failed = true
	if j.report.Err == "" {
		j.report.Err = err.Error()
	}
}

// Run fences targets together (each scan serves them all), within Limit, and reports on each in the order given. After an error the fence
// goes on with the steps that still can do good; what is not verified is not fenced, and may be tried again.
func (f *Fence) Run(ctx context.Context, targets ...Target) []Report {
	if len(targets) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, f.o.Limit)
	defer cancel()
	began := time.Now()
	reports := make([]Report, len(targets))
	jobs := make([]*job, len(targets))
	for i, t := range targets {
		reports[i] = Report{Target: t}
		jobs[i] = &job{target: t, report: &reports[i]}
	}
	for _, s := range f.steps {
		at := time.Now()
		outcomes := s.run(ctx, f, jobs)
		for i, j := range jobs {
			r := StepResult{Step: s.name, Outcome: outcomes[i].text(), Took: time.Since(at)}
			j.report.Steps = append(j.report.Steps, r)
			if outcomes[i].err != nil {
				j.fail(fmt.Errorf("%s: %w", s.name, outcomes[i].err))
			}
		}
	}
	for i := range reports {
		reports[i].Fenced = !jobs[i].failed
		reports[i].Took = time.Since(began)
		if n := len(reports[i].Killed); n > 0 {
			f.log.Warn("stopped the users of a mount", zap.Stringer("volume", targets[i].Ref), zap.String("path", targets[i].Path), zap.Int("killed", n),
				zap.String("users", describe(reports[i].Killed)), zap.Bool("verified", reports[i].Fenced), zap.Duration("took", reports[i].Took))
		}
	}
	return reports
}
