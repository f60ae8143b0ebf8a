package demo

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/holdfast-io/holdfast/cmd/holdfast/dev"
	"github.com/holdfast-io/holdfast/examples/records/ledger"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
)

// acked gives the sequence of the last record that an instance acknowledged, 0 for none.
func (d *demo) acked(id string) uint64 {
	f, err := os.Open(d.ackFile(id))
	if err != nil {
		return 0
	}
	defer f.Close()
	if end, err := f.Seek(0, io.SeekEnd); err == nil && end > 256 {
		_, _ = f.Seek(-256, io.SeekEnd)
	} else {
		_, _ = f.Seek(0, io.SeekStart)
	}
	raw, err := io.ReadAll(f)
	if err != nil {
		return 0
	}
	end := bytes.LastIndexByte(raw, '\n') // the last whole line ends here
	if end < 0 {
		return 0
	}
	line := string(raw[bytes.LastIndexByte(raw[:end], '\n')+1 : end])
	r, err := ledger.Parse(line)
	if err != nil {
		return 0
	}
	return r.Sequence
}

func (d *demo) ackFile(id string) string { return filepath.Join(d.acks(), "acks-"+id) }

// audit stops the cluster and compares, instance by instance.
func (d *demo) audit(context.Context) error {
	if err := d.stopCluster(); err != nil {
		return err
	}
	left, err := dev.Leftovers(d.state())
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fault.New(fault.Internal, "left behind: %s", strings.Join(left, "; "))
	}
	d.ok("no process, mount or socket is left")
	total := 0
	for i := range 5 {
		if _, err := os.Stat(d.ackFile(fmt.Sprintf("records.%d", i))); err != nil && d.cfg.Acts > 0 {
			continue // never scaled so far
		}
		acks, runs, err := d.auditInstance(i)
		if err != nil {
			return err
		}
		total += acks
		d.ok("records.%d: all %d acknowledged records of its %d runs are there, once, in order", i, acks, runs)
	}
	d.ok("%d records in all", total)
	return nil
}

func (d *demo) auditInstance(ordinal int) (acks, runs int, err error) {
	id := fmt.Sprintf("records.%d", ordinal)
	name := filepath.Join(dev.PoolOf(d.state()), volume.NameFor("records", ordinal, false), "data", "records")
	f, err := os.Open(name)
	if err != nil {
		return 0, 0, fault.Wrap(fault.Internal, err, "the volume of %s", id)
	}
	defer f.Close()
	records, _, err := ledger.Read(f)
	if err != nil {
		return 0, 0, fault.Wrap(fault.Internal, err, "the volume of %s: %s", id, name)
	}
	runs = 0
	for i := range records {
		if records[i].Instance != id {
			return 0, 0, fault.New(fault.Internal, "the volume of %s holds record %d of %s", id, i+1, records[i].Instance)
		}
		if i == 0 || records[i].Incarnation != records[i-1].Incarnation {
			runs++
		}
	}
	a, err := os.Open(d.ackFile(id))
	if err != nil {
		return 0, 0, fault.Wrap(fault.Internal, err, "the acknowledgements of %s", id)
	}
	defer a.Close()
	last := uint64(0)
	for lines := bufio.NewScanner(a); lines.Scan(); {
		ack, err := ledger.Parse(lines.Text())
		switch {
		case err != nil:
			return 0, 0, fault.Wrap(fault.Internal, err, "the acknowledgements of %s", id)
		case ack.Sequence <= last:
			return 0, 0, fault.New(fault.Internal, "%s acknowledged record %d after record %d", id, ack.Sequence, last)
		case ack.Sequence > uint64(len(records)):
			return 0, 0, fault.New(fault.Internal, "record %d of %s was acknowledged and is lost: its volume ends at %d", ack.Sequence, id, len(records))
		case records[ack.Sequence-1] != ack:
			return 0, 0, fault.New(fault.Internal, "record %d of %s was acknowledged as %+v and is now %+v", ack.Sequence, id, ack, records[ack.Sequence-1])
		}
		last = ack.Sequence
		acks++
	}
	if acks == 0 {
		return 0, 0, fault.New(fault.Internal, "%s acknowledged nothing", id)
	}
	return acks, runs, nil
}
