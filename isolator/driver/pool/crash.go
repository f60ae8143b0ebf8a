package pool

import (
	"os"
	"syscall"
)

// CrashVariable names the environment variable that makes the process kill itself (SIGKILL) when it comes to a step of the loop back end. Tests
// set it.
const CrashVariable = "HOLDFAST_POOL_CRASH_AT"

// CrashSteps are the places where a kill must lose and leak nothing, in the order of a volume's life.
var CrashSteps = []string{
	"create.image", "create.made", "create.attached", "create.staged", "create.filled", "create.unbound", "create.detached",
	"mount.attached", "mount.staged", "mount.filled",
	"unmount.unbound", "unmount.detached",
}

var crashStep = os.Getenv(CrashVariable)

func crashAt(step string) {
	if crashStep == "" || crashStep != step {
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // until the signal is there
}
