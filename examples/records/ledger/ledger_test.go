package ledger

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTakesUpWhereItEnded(t *testing.T) {
	dir := t.TempDir()
	name, acks := filepath.Join(dir, "records"), filepath.Join(dir, "acks")
	for run := 1; run <= 3; run++ {
		w, found, err := Open(name, acks, "db.1", uint64(run))
		if err != nil || found != (run-1)*5 {
			t.Fatalf("run %d: found %d, %v", run, found, err)
		}
		for range 5 {
			if _, err := w.Append(); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		// A torn write, as a crash leaves it.
		f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteString("16 db.1 ")
		f.Close()
	}
	for _, file := range []string{name, acks} {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		records, _, err := Read(f)
		if err != nil || len(records) != 15 || records[14] != (Record{15, "db.1", 3}) {
			t.Errorf("%s: %d records, %v", file, len(records), err)
		}
	}
}

func TestReadFindsWhatIsWrong(t *testing.T) {
	line := func(seq uint64, instance string, inc uint64) string { return Record{seq, instance, inc}.line() }
	for name, in := range map[string]string{
		"gap":            line(1, "a.0", 1) + line(3, "a.0", 1),
		"repeated":       line(1, "a.0", 1) + line(1, "a.0", 1),
		"first missing":  line(2, "a.0", 1),
		"old writer":     line(1, "a.0", 2) + line(2, "a.0", 1),
		"other instance": line(1, "a.0", 1) + line(2, "a.1", 1),
		"damaged":        strings.Replace(line(1, "a.0", 1), "a.0", "a.9", 1),
		"empty line":     "\n",
	} {
		if _, _, err := Read(strings.NewReader(in)); err == nil {
			t.Errorf("%s: no error for %q", name, in)
		}
	}
}
