package fence

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkUsers looks for users of one unused directory among all processes of this machine.
func BenchmarkUsers(b *testing.B) {
	dir, err := filepath.EvalSymlinks(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	f := New(Options{})
	pids, err := processes("/proc")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := f.Users(context.Background(), Target{Path: dir, Verify: VerifyScan}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(pids)), "processes")
	_ = os.Getpid()
}
