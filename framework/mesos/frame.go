package mesos

import (
	"bufio"
	"errors"
	"io"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// MaxFrame bounds one event in bytes: some 300,000 offers.
const MaxFrame = 64 << 20

// frameReader reads RecordIO: a decimal length, a line feed, that many bytes.
type frameReader struct {
	r   *bufio.Reader
	max int
	buf []byte
}

func newFrameReader(r io.Reader, max int) *frameReader {
	return &frameReader{r: bufio.NewReaderSize(r, 64<<10), max: max}
}

// next gives the next frame, valid until the one after. io.EOF at a clean end, fault.Invalid for what is not RecordIO or too
// large: the stream is useless then.
func (f *frameReader) next() ([]byte, error) {
	n, err := f.length()
	if err != nil {
		return nil, err
	}
	const keep = 1 << 20
	if cap(f.buf) > keep && n <= keep {
		f.buf = nil
	}
	// A length is only a claim: memory grows with what really comes.
	f.buf = f.buf[:0]
	for len(f.buf) < n {
		step := min(n-len(f.buf), max(64<<10, len(f.buf)))
		at := len(f.buf)
		f.buf = append(f.buf, make([]byte, step)...)
		if _, err := io.ReadFull(f.r, f.buf[at:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return f.buf, nil
}

func (f *frameReader) length() (int, error) {
	n, digits := 0, 0
	for {
		c, err := f.r.ReadByte()
		if err != nil {
			if errors.Is(err, io.EOF) && digits > 0 {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
		switch {
		case c == '\n' && digits > 0:
			return n, nil
		case c < '0' || c > '9' || digits >= 10:
			return 0, fault.New(fault.Invalid, "event stream: frame length is not a number")
		}
		digits++
		n = n*10 + int(c-'0')
		if n > f.max {
			return 0, fault.New(fault.Invalid, "event stream: frame of more than %d bytes", f.max)
		}
	}
}
