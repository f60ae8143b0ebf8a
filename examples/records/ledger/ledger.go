// Package ledger is a file of numbered records that shows whether a volume kept everything that was written to it, once and in
// order, by one writer at a time. A record is a line of its own with a checksum:
//
//	<sequence> <instance> <incarnation> <crc32>
//
// Sequences begin at 1 and have no gaps, incarnations never fall. A record counts once it was fsynced; its writer then
// acknowledges it by a line in another file, outside of the volume. What was acknowledged must be there for ever.
package ledger

import (
	"bufio"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strings"
)

// Record is one record.
type Record struct {
	Sequence    uint64
	Instance    string // without spaces
	Incarnation uint64
}

func (r Record) line() string {
	text := fmt.Sprintf("%d %s %d", r.Sequence, r.Instance, r.Incarnation)
	return fmt.Sprintf("%s %08x\n", text, crc32.ChecksumIEEE([]byte(text)))
}

// Parse reads a line without its end.
func Parse(line string) (Record, error) {
	var r Record
	cut := strings.LastIndexByte(line, ' ')
	if cut < 0 {
		return r, fmt.Errorf("record %q has no checksum", line)
	}
	if want := fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(line[:cut]))); line[cut+1:] != want {
		return r, fmt.Errorf("record %q: checksum should be %s", line, want)
	}
	_, err := fmt.Sscanf(line[:cut], "%d %s %d", &r.Sequence, &r.Instance, &r.Incarnation)
	return r, err
}

// Read gives the records of a file in order. torn is how many bytes at its end are not a whole line: a write that a crash cut
// short, which nobody acknowledged. Anything else that is not a valid record in sequence is an error.
func Read(r io.Reader) (records []Record, torn int64, err error) {
	in := bufio.NewReader(r)
	for {
		line, rerr := in.ReadString('\n')
		if errors.Is(rerr, io.EOF) {
			return records, int64(len(line)), nil
		}
		if rerr != nil {
			return records, 0, rerr
		}
		rec, perr := Parse(strings.TrimSuffix(line, "\n"))
		if perr != nil {
			return records, 0, fmt.Errorf("line %d: %w", len(records)+1, perr)
		}
		if want := uint64(len(records) + 1); rec.Sequence != want {
			return records, 0, fmt.Errorf("line %d: sequence %d instead of %d: lost, repeated, or two writers", want, rec.Sequence, want)
		}
		if n := len(records); n > 0 && (rec.Incarnation < records[n-1].Incarnation || rec.Instance != records[n-1].Instance) {
			return records, 0, fmt.Errorf("line %d: %s #%d after %s #%d: two writers", n+1, rec.Instance, rec.Incarnation, records[n-1].Instance, records[n-1].Incarnation)
		}
		records = append(records, rec)
	}
}

// Writer appends records for one run of an instance.
type Writer struct {
	file, acks *os.File
	next       Record
}

// Open takes up a file where it ends, without what was torn; acks is the file of acknowledgements. Both are made when they are
// not there. It gives the number of records found.
func Open(name, acks, instance string, incarnation uint64) (_ *Writer, found int, err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, 0, err
	}
	records, torn, err := Read(f)
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	end, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		end -= torn
		err = f.Truncate(end)
	}
	if err == nil {
		_, err = f.Seek(end, io.SeekStart)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	a, err := os.OpenFile(acks, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	next := Record{Sequence: uint64(len(records)) + 1, Instance: instance, Incarnation: incarnation}
	return &Writer{file: f, acks: a, next: next}, len(records), nil
}

// Append writes a record, waits until it is on disk, and acknowledges it.
func (w *Writer) Append() (Record, error) {
	r := w.next
	if _, err := io.WriteString(w.file, r.line()); err != nil {
		return r, err
	}
	if err := w.file.Sync(); err != nil {
		return r, err
	}
	w.next.Sequence++
	_, err := io.WriteString(w.acks, r.line())
	return r, err
}

// Close closes both files.
func (w *Writer) Close() error { return errors.Join(w.file.Close(), w.acks.Close()) }
