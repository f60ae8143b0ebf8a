package csistage

import (
	"os"
	"syscall"
)

// CrashVariable names the environment variable that makes the process kill itself (SIGKILL) when it comes to a step. Tests set it.
const CrashVariable = "HOLDFAST_CSI_CRASH_AT"

// CrashSteps are the places where a kill must lose and leak nothing, in the order of a volume's life.
var CrashSteps = []string{
	"create.intent", "create.plugin", "create.done",
	"snapshot.intent", "snapshot.plugin", "snapshot.done", "grow.intent", "grow.plugin", "grow.done",
	"mount.attach", "mount.attached", "mount.stage", "mount.staged", "mount.publish", "mount.published",
	"unmount.unpublished", "unmount.unstage", "unmount.unstaged", "unmount.detach", "unmount.detached", "unmount.done",
	"unsnapshot.intent", "unsnapshot.plugin", "unsnapshot.done", "remove.intent", "remove.plugin", "remove.done",
}

var crashStep = os.Getenv(CrashVariable)

// CrashAt kills the process if the variable names the step.
func CrashAt(step string) {
	if crashStep == "" || crashStep != step {
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // until the signal is there
}
