package pool

import (
	"github.com/holdfast-io/holdfast/isolator/backend"
)

// settleOptions completes label and wish by the options, and lets the back end judge them.
func (p *Pool) settleOptions(options map[string]string, l *backend.Label, clone bool) error {
	w, err := backend.ParseOptions(options)
	if err != nil {
		return err
	}
	if l.Size == 0 {
		l.Size = w.Size
	}
	if l.Size == 0 && !clone {
		l.Size = p.o.Size
	}
	if l.Size != 0 || !clone { // a clone has its source's
		if l.Size, err = p.back.Size(l.Size); err != nil {
			return err
		}
	}
	return p.back.Judge(w, l, clone)
}
