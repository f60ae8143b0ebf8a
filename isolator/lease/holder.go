package lease

import "time"

// holder is the holder's side of the lease as a pure state machine: what it may believe, given what was sent, what
// was acknowledged, and what the record shows. It does no I/O and reads no clock.
type holder struct {
	timings    Timings
	uid, boot  string
	phase      phase
	generation uint64 // of the lease held, or last held
	seq        uint64
	version    uint64        // of the node's register as last known
	deadline   time.Duration // D; valid in phase leased
	sent       map[uint64]time.Duration
	// bootstrap: what was known before a restart of the process.
	lastGeneration uint64
	lastDeadline   time.Duration
	// attempted is a generation whose registration was sent and got no answer.
	attempted uint64
}

type phase int

const (
	starting   phase = iota // the record was not read yet
	standing                // a record of another boot is alive: it must stand still for W first
	unverified              // the lease is lost: fence, verify
	leased                  // alive at generation, until deadline
)

func newHolder(t Timings, uid, boot string, lastGeneration uint64, lastDeadline time.Duration) *holder {
	return &holder{timings: t, uid: uid, boot: boot, lastGeneration: lastGeneration, lastDeadline: lastDeadline, sent: map[uint64]time.Duration{}}
}

// start decides what a holder without a lease does, from the record as it stands (nil: none).
//
// A live record of the generation that we remember is ours: on the same boot and before its deadline we are the process that held
// it, started anew, and go on; otherwise fence and verify, then the next generation. A live record that we do not remember may be
// another machine's that has our uid, or our own from before a reboot: who cannot tell waits until it has stood still as long as a
// taker would. A dead one: verify, then the next generation.
func (h *holder) start(now time.Duration, record *NodeVersion) phase {
	switch {
	case record == nil:
		h.generation, h.seq, h.version = 0, 0, 0
		return unverified
	case !record.Alive:
		h.take(record)
		return unverified
	case h.lastGeneration != 0 && record.Generation == h.lastGeneration:
		h.take(record)
		if record.BootID == h.boot && now < h.lastDeadline {
			h.phase, h.deadline = leased, h.lastDeadline
			return leased
		}
		return unverified
	case h.attempted != 0 && record.Generation == h.attempted && record.BootID == h.boot:
		h.take(record)
		return unverified
	}
	return standing
}

func (h *holder) take(record *NodeVersion) {
	h.generation, h.seq, h.version = record.Generation, record.Seq, record.Version
}

// send notes that a renewal or registration with sequence number seq leaves now.
func (h *holder) send(seq uint64, now time.Duration) {
	if _, again := h.sent[seq]; !again {
		h.sent[seq] = now // the earliest: a copy of an earlier sending may be the one that arrives
	}
}

// acknowledged takes in the reply to the write of (generation, seq), received now. It gives the new D, and false when the lease
// was over before: an acknowledgement that comes at D or later revives nothing.
func (h *holder) acknowledged(now time.Duration, generation, seq, version uint64) (d time.Duration, alive bool) {
	sent, known := h.sent[seq]
	fresh := generation != h.generation || h.phase != leased
	if !known || (!fresh && now >= h.deadline) || now >= sent+h.timings.F {
		return h.deadline, false
	}
	for s := range h.sent {
		if s <= seq {
			delete(h.sent, s)
		}
	}
	d = sent + h.timings.F
	if !fresh {
		d = max(d, h.deadline)
	}
	h.phase, h.generation, h.seq, h.version, h.deadline = leased, generation, seq, version, d
	h.lastGeneration, h.lastDeadline = generation, d
	return d, true
}

// collided decides what a record means that somebody else wrote under our lease: "" when it is only our own write that was thought
// lost, otherwise why the lease is gone.
func (h *holder) collided(record *NodeVersion) (why string) {
	switch {
	case record == nil:
		return "the node's record is gone from the authority"
	case !record.Alive && record.Generation == h.generation:
		return "the lease was declared dead by " + record.DeadBy
	case record.BootID != h.boot || record.Generation != h.generation:
		h.lastGeneration = 0 // it is not ours to continue or to end
		return "another machine or process writes this node's record (boot " + record.BootID + ", host " + record.Hostname + ")"
	case record.Seq > h.seq && !h.wasSent(record.Seq):
		h.lastGeneration = 0 // it is not ours to continue or to end
		return "another process of this machine renews this node's lease"
	}
	return ""
}

func (h *holder) wasSent(seq uint64) bool {
	_, ok := h.sent[seq]
	return ok
}

// lose ends the lease and tells whether there was one. It is never continued, only followed by the next generation.
func (h *holder) lose() bool {
	had := h.phase == leased
	h.phase, h.lastDeadline = unverified, 0
	return had
}

// expired tells whether D has come.
func (h *holder) expired(now time.Duration) bool { return h.phase == leased && now >= h.deadline }

// mayMount is I3.
func (h *holder) mayMount(now, m time.Duration) bool { return h.phase == leased && now+m <= h.deadline }
