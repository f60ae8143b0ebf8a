package pool

import "github.com/holdfast-io/holdfast/isolator/image"

// CrashVariable names the environment variable that makes the process kill itself (SIGKILL) when it comes to a step of the loop back end. Tests
// set it.
const CrashVariable = image.CrashVariable

// CrashSteps are the places where a kill must lose and leak nothing, in the order of a volume's life.
var CrashSteps = []string{
	"create.image", "create.made", "create.attached", "create.staged", "create.filled", "create.unbound", "create.detached",
	"mount.attached", "mount.staged", "mount.filled",
	"unmount.unbound", "unmount.detached",
}

// MoreCrashSteps are those of growing and copying, as a mounted volume comes by them and as one does that is not mounted, and those of the bin.
var MoreCrashSteps = struct{ Mounted, Unmounted, Bin []string }{
	Mounted: []string{"grow.recorded", "grow.larger", "grow.device", "grow.done",
		"snapshot.copied", "snapshot.labelled", "placed"},
	Unmounted: []string{"grow.recorded", "grow.larger", "regrow.attached", "regrow.staged", "regrow.filled", "regrow.begun", "regrow.resized", "grow.done",
		"snapshot.copied", "snapshot.labelled", "placed",
		"clone.copied", "clone.attached", "clone.staged", "clone.filled", "clone.unbound", "clone.detached", "clone.named"},
	Bin: []string{"remove.labelled", "remove.moved", "undelete.labelled", "undelete.moved", "discard.moved"},
}

func crashAt(step string) { image.CrashAt(step) }
