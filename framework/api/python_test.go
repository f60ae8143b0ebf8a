package api_test

import (
	"context"
	"os/exec"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/heavy"
)

// TestHeavyPythonMarathon runs Debian's python3-marathon through create, scale, restart, update, groups, events and delete.
func TestHeavyPythonMarathon(t *testing.T) {
	const python = "/usr/bin/python3" // the one that Debian's packages are for
	heavy.Require(t, func(testing.TB) string {
		if exec.Command(python, "-c", "import marathon").Run() != nil {
			return "needs Debian's python3-marathon"
		}
		return ""
	})
	c, srv := serve(t)
	t.Cleanup(srv.CloseClientConnections)
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	go func() { // the cluster lives on
		for ctx.Err() == nil {
			c.pass(time.Second)
			time.Sleep(20 * time.Millisecond)
		}
	}()
	out, err := exec.CommandContext(ctx, python, "testdata/client.py", srv.URL).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}
