package isolator

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// CrashVariable names the environment variable that makes the process kill itself (SIGKILL) at a step: "<step>" or
// "<step>:<n>" for the n-th time it comes there. Tests set it; the steps are listed in CrashSteps.
const CrashVariable = "HOLDFAST_CRASH_AT"

// CrashSteps are the places between two effects where a kill must lose and leak nothing, in the order of an operation's life.
var CrashSteps = []string{
	"mount.checked", "mount.held", "mount.intent", "mount.driver", "mount.verified", "mount.done",
	"unmount.begun", "unmount.intent", "unmount.flushed", "unmount.driver", "unmount.gone", "unmount.released", "unmount.done",
	"create.intent", "create.driver", "create.done",
	"remove.intent", "remove.driver", "remove.done",
}

// OperationSteps are those of operations other than mounting.
var OperationSteps = []string{
	"operation.recorded", "operation.held", "operation.done", "freeze.intent", "freeze.frozen", "snapshot.frozen", "snapshot.driver",
	"make.recorded", "make.unclaimed", "undelete.driver", "resize.begun", "resize.driver",
	"backup.snapshot", "backup.mounted", "restore.made", "restore.mounted",
}

type crasher struct {
	step string
	left atomic.Int64
}

var crash = func() *crasher {
	step, n, found := strings.Cut(os.Getenv(CrashVariable), ":")
	c := &crasher{step: step}
	c.left.Store(1)
	if found {
		if v, err := strconv.Atoi(n); err == nil {
			c.left.Store(int64(v))
		}
	}
	return c
}()

// crashAt is where a test may kill the process.
func crashAt(step string) {
	if crash.step == "" || crash.step != step || crash.left.Add(-1) != 0 {
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // until the signal is there
}
