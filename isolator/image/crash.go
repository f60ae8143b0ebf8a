package image

import (
	"os"
	"syscall"
)

// CrashVariable names the environment variable that makes the process kill itself (SIGKILL) when it comes to a step of the pool. Tests
// set it.
const CrashVariable = "HOLDFAST_POOL_CRASH_AT"

var crashStep = os.Getenv(CrashVariable)

// CrashAt is where a kill must lose and leak nothing. The pool lists the steps.
func CrashAt(step string) {
	if crashStep == "" || crashStep != step {
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // until the signal is there
}
