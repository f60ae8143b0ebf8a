package fence

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// State is the memory that isolator and watchdog share: a mapped file with the deadline, and the list of managed mounts in two slots of
// which one counts, so that whoever is killed while writing leaves the other. It lasts as long as the boot: on another boot it
// begins empty. Its space is allocated at the start, so that a disk that is full later stops neither a new deadline nor a shorter list.
type State struct {
	path  string
	clock int
	mem   []byte

	mu     sync.Mutex // of the isolator's own writers; the watchdog writes other words
	closed bool
	read   uint64   // the number of the list that was read last
	list   []Target // that list, which nobody changes
}

// The layout: words of eight bytes, then the slots.
const (
	stateMagic  = 0x686f6c6466617331 // "holdfas1"
	stateHeader = 4096
	stateSlot   = 1 << 20
	stateSize   = stateHeader + 2*stateSlot

	stateTextMax     = 512 // bytes of each text in the header, behind the words
	stateDeadManPath = 1024
	stateDeadManWhy  = stateDeadManPath + stateTextMax
)

type word int

const (
	wordMagic word = iota
	wordClock
	wordBoot1 // 16 bytes of the boot id
	wordBoot2
	wordGeneration
	wordDeadline
	wordActive // list number: its last bit says which slot counts; 0 for none yet
	wordIsolatorPID
	wordIsolatorStart
	wordDrain
	wordLimit         // S in nanoseconds
	wordWatchdogPID   // written by the watchdog
	wordWatchdogBeat  // its clock at its last round
	wordWatchdogFence // the deadline for which it last fenced and verified
	wordDeadManPath   // length of the path of the dead-man that is asked for
	wordDeadManTimeout
	wordReset        // H in nanoseconds
	wordDeadManArmed // written by the watchdog: the time-out of what it feeds
	wordDeadManWhy   // by the watchdog: length of the reason why there is none
	wordPending      // by the isolator: mounts on their way whose place is not known yet
	words
)

// OpenState maps the state file at path (making it) for the isolator, which from now on is the process that the watchdog watches. Clock
// is unix.CLOCK_BOOTTIME or unix.CLOCK_MONOTONIC, the clock of the deadlines. What is there of this boot is kept.
func OpenState(path string, clock int) (*State, error) {
	s, err := mapState(path, true)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "open the watchdog's state %s", path)
	}
	boot, err := bootID()
	if err != nil {
		_ = s.Close()
		return nil, fault.Wrap(fault.Unavailable, err, "read the boot id")
	}
	if s.get(wordMagic) != stateMagic || s.get(wordClock) != uint64(clock) || s.get(wordBoot1) != boot[0] || s.get(wordBoot2) != boot[1] {
		s.set(wordMagic, 0)
		for w := wordClock; w < words; w++ {
			s.set(w, 0)
		}
		s.set(wordClock, uint64(clock))
		s.set(wordBoot1, boot[0])
		s.set(wordBoot2, boot[1])
		s.set(wordMagic, stateMagic)
	}
	s.clock = clock
	self, err := readStat("/proc", os.Getpid())
	if err != nil {
		_ = s.Close()
		return nil, fault.Wrap(fault.Unavailable, err, "look at the own process")
	}
	s.set(wordIsolatorStart, self.start)
	s.set(wordIsolatorPID, uint64(os.Getpid()))
	s.set(wordDrain, 0)
	return s, nil
}

// joinState maps an existing state file for the watchdog.
func joinState(path string) (*State, error) {
	s, err := mapState(path, false)
	if err != nil {
		return nil, err
	}
	boot, err := bootID()
	if err == nil && s.get(wordMagic) != stateMagic {
		err = fmt.Errorf("%s is not a state file of this version", path)
	}
	if err == nil && (s.get(wordBoot1) != boot[0] || s.get(wordBoot2) != boot[1]) {
		err = fmt.Errorf("%s is of an earlier start of the machine", path)
	}
	if err != nil {
		_ = s.Close()
		return nil, err
	}
	s.clock = int(s.get(wordClock))
	return s, nil
}

func mapState(path string, create bool) (*State, error) {
	flags := os.O_RDWR | unix.O_CLOEXEC | unix.O_NOFOLLOW
	if create {
		flags |= os.O_CREATE
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if create {
		if err := allocate(f); err != nil {
			return nil, err
		}
	}
	if st, err := f.Stat(); err != nil || st.Size() < stateSize {
		return nil, errors.Join(err, fmt.Errorf("%s is too short", path))
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, stateSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return &State{path: path, mem: mem}, nil
}

// allocate gives the file its whole size on disk.
func allocate(f *os.File) error {
	st, err := f.Stat()
	if err != nil || st.Size() >= stateSize {
		return err
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, stateSize)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		_, err = f.WriteAt(make([]byte, stateSize), 0)
	}
	return err
}

func bootID() (id [2]uint64, err error) {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return id, err
	}
	hex := strings.ReplaceAll(strings.TrimSpace(string(raw)), "-", "")
	if _, err := fmt.Sscanf(hex, "%16x%16x", &id[0], &id[1]); err != nil {
		return id, fmt.Errorf("boot id %q: %w", hex, err)
	}
	return id, nil
}

func (s *State) pointer(w word) *uint64 { return (*uint64)(unsafe.Pointer(&s.mem[int(w)*8])) }

func (s *State) get(w word) uint64 { return atomic.LoadUint64(s.pointer(w)) }

func (s *State) set(w word, v uint64) { atomic.StoreUint64(s.pointer(w), v) }

// now is the clock of the deadlines.
func (s *State) now() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(s.clock), &ts); err != nil {
		return 1<<63 - 1 // a clock that cannot be read is past every deadline
	}
	return time.Duration(ts.Nano())
}

// SetDeadline hands generation and D to the watchdog. It does not block, and does nothing after Close.
func (s *State) SetDeadline(generation uint64, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.set(wordGeneration, generation)
	s.set(wordDeadline, uint64(d))
}

// Deadline gives what SetDeadline stored last on this boot and clock, by whichever process; zeros when nothing was.
func (s *State) Deadline() (generation uint64, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, 0
	}
	return s.get(wordGeneration), time.Duration(s.get(wordDeadline))
}

// SetLimit tells the watchdog S, the bound of one fence; default 1 s.
func (s *State) SetLimit(limit time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.set(wordLimit, uint64(limit))
	}
}

// SetMounts replaces the list of managed mounts, each a Target in JSON. The isolator calls it before each mount, and after each unmount. Invalid when
// the list is too long.
func (s *State) SetMounts(targets []json.RawMessage) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fault.New(fault.Unavailable, "the watchdog's state is closed")
	}
	raw := append([]byte{'['}, bytes.Join(rawBytes(targets), []byte{','})...)
	raw = append(raw, ']')
	if len(raw) > stateSlot-16 {
		return fault.New(fault.Invalid, "the list of %d managed mounts does not fit into the watchdog's state", len(targets))
	}
	number := s.get(wordActive) + 1
	if number == 0 {
		number = 2 // 0 means "no list"; 2 keeps the slots in turn
	}
	slot := s.slot(number)
	binary.LittleEndian.PutUint64(slot, uint64(len(raw)))
	copy(slot[16:], raw)
	binary.LittleEndian.PutUint64(slot[8:], uint64(crc32.ChecksumIEEE(raw)))
	s.set(wordActive, number)
	return nil
}

func rawBytes(m []json.RawMessage) [][]byte {
	out := make([][]byte, len(m))
	for i := range m {
		out[i] = m[i]
	}
	return out
}

func (s *State) slot(number uint64) []byte {
	from := stateHeader + int(number&1)*stateSlot
	return s.mem[from : from+stateSlot]
}

// Mounts gives the list. An error means that it cannot be read, not that it is empty.
func (s *State) Mounts() ([]Target, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fault.New(fault.Unavailable, "the watchdog's state is closed")
	}
	for try := 0; try < 100; try++ {
		number := s.get(wordActive)
		if number == 0 {
			return nil, nil
		}
		if number == s.read {
			return s.list, nil
		}
		slot := s.slot(number)
		n, sum := binary.LittleEndian.Uint64(slot), binary.LittleEndian.Uint64(slot[8:])
		if n <= stateSlot-16 {
			raw := append([]byte(nil), slot[16:16+n]...)
			var targets []Target
			if uint64(crc32.ChecksumIEEE(raw)) == sum && json.Unmarshal(raw, &targets) == nil {
				s.read, s.list = number, targets
				return targets, nil
			}
		}
		time.Sleep(time.Millisecond) // it was replaced twice meanwhile
	}
	return nil, fault.New(fault.Internal, "the list of managed mounts in %s is damaged", s.path)
}

// Drain tells the watchdog to end: nothing is managed any more.
func (s *State) Drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.set(wordDrain, 1)
	}
}

// WatchdogAlive tells whether a watchdog process has made its round lately.
func (s *State) WatchdogAlive() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.closed && s.get(wordWatchdogBeat) != 0 && s.now()-time.Duration(s.get(wordWatchdogBeat)) < beatLimit
}

// Close unmaps the state. The watchdog goes on.
func (s *State) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	return unix.Munmap(s.mem)
}
