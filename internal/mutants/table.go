package main

// edit replaces a text, which must stand exactly once in a file.
type edit struct{ file, old, new string }

// mutant breaks one decision that a case of docs/safety.md rests on, and names the test that must see it.
type mutant struct {
	name  string // number of the case, and a letter where there are several
	what  string
	edits []edit
	pkg   string
	test  string // a top-level test; TestHeavy… needs root
}

const (
	decide   = "isolator/lease/decide.go"
	holder   = "isolator/lease/holder.go"
	observer = "isolator/lease/observer.go"
	leasePkg = "./isolator/lease"
	suite    = "./isolator/lease/leasetest"
	node     = "./isolator"
	fencePkg = "./isolator/fence"
)

func one(file, old, new string) []edit { return []edit{{file, old, new}} }

// mutants are in the order of the cases.
var mutants = []mutant{
	{"01", "a hold does not compare epoch and nonce with the authority's", one(decide, "ours := c.Epoch == h.Epoch && c.Nonce == h.Nonce", "ours := h.Epoch > 0"), suite, "TestTransitions"},
	{"02", "the end of a task frees its instance", one("scheduler/advance.go", "	if allFreed(i.Run) {\n		w.endRun(i)\n		return\n	}\n	again := false", "	if true {\n		w.endRun(i)\n		return\n	}\n	again := false"), "./scheduler", "TestScenarios"},
	{"03", "any answer counts as a renewal, as a ping would", one("isolator/lease/keeper.go", "	case err == nil:\n		k.acknowledge(nv)\n	case errors.Is(err, ErrRootChanged)", "	case !fault.Is(err, fault.Conflict):\n		nv.Node, nv.Version = n, expect\n		k.acknowledge(nv)\n	case errors.Is(err, ErrRootChanged)"), leasePkg, "TestKeeperCutOff"},
	{"04", "a node that is silent for a moment is dead, as with sessions", one(observer, "} else if now >= w.Due {", "} else if now >= s.first+o.timings.P {"), leasePkg, "TestObserver"},
	{"05", "D counts from the acknowledgement", one(holder, "d = sent + h.timings.F", "d = now + h.timings.F"), leasePkg, "TestDeadlineCountsFromSending"},
	{"05b", "an acknowledgement after D revives the lease", one(holder, "(!fresh && now >= h.deadline) || now >= sent+h.timings.F", "false"), leasePkg, "TestLateAcknowledgement"},
	{"06", "a node is declared dead at whatever version it has", []edit{
		{"isolator/lease/nodes.go", "case now.Version != nv.Version:\n			return nil, nil, final(fault.New(fault.Conflict, \"node %s has renewed its lease\"", "case false:\n			return nil, nil, final(fault.New(fault.Conflict, \"node %s has renewed its lease\""},
		{"isolator/lease/nodes.go", "Key: nodeKey(nv.UID), Expect: nv.Version, Value: encode(next)}}, nil, nil\n	})\n	return fault.Op(err, \"declare node %s dead\", nv.UID)", "Key: nodeKey(nv.UID), Expect: now.Version, Value: encode(next)}}, nil, nil\n	})\n	return fault.Op(err, \"declare node %s dead\", nv.UID)"},
	}, suite, "TestTransitions"},
	{"07", "the wait goes on over a hole in the observation", one(observer, "func (o *observer) hole() { clear(o.seen); o.any = false }", "func (o *observer) hole() {}"), leasePkg, "TestObserverHoles"},
	{"08", "an isolator that is back in time begins a new lease", one(holder, "if record.BootID == h.boot && now < h.lastDeadline {", "if false {"), leasePkg, "TestStart"},
	{"09", "the dead-man is fed though the fence is not verified", one("isolator/fence/deadman.go", "	if !s.MayFeed() {\n		if !d.starving {", "	if false {\n		if !d.starving {"), fencePkg, "TestHeavyDeadManStarvesUnverified"},
	{"09b", "the grade of the fence does not matter", one(decide, "case rank(c.Fence) < rank(minGrade(c.Policy)):", "case false:"), suite, "TestTransitions"},
	{"09c", "the dead-man may be fed past the deadline", one("isolator/deadman/decide.go", "return s.Now < s.Deadline+max(s.Limit-s.Timeout, 0)", "return s.Now < s.Deadline+s.Limit"), "./isolator/deadman", "TestMayFeed"},
	{"10", "a mount that hangs does not count as held", one("isolator/mounting.go", "	case journal.Mounting, journal.Mounted, journal.Unmounting:\n		return true", "	case journal.Mounted, journal.Unmounting:\n		return true"), node, "TestPendingMountCounts"},
	{"10b", "a mount begins however near the deadline is", one(holder, "return h.phase == leased && now+m <= h.deadline", "return h.phase == leased"), leasePkg, "TestDeadlineCountsFromSending"},
	{"11", "what mountinfo does not show is gone", one("isolator/fence/superblock.go", "if err := d.Gone(ctx, patience); err != nil {\n			return \"\", err\n		}\n	}\n	return \"its file system is gone\", nil", "_ = d\n	}\n	return \"its file system is gone\", nil"), fencePkg, "TestHeavySuperblockHeldByTheKernel"},
	{"12", "a loop device keeps pages of its own", []edit{
		{"isolator/loop/loop.go", "c.Info.Flags = unix.LO_FLAGS_DIRECT_IO", "c.Info.Flags = 0"},
		{"isolator/loop/loop.go", "if err == nil && info.Flags&unix.LO_FLAGS_DIRECT_IO == 0 {", "if err == nil && info.Flags&unix.LO_FLAGS_DIRECT_IO == 0 && false {"},
	}, fencePkg, "TestHeavyLoopIsDirect"},
	{"13", "writers are killed before their file system is thawed", []edit{
		{"isolator/fence/steps.go", "		{\"thaw\", thawAll},\n", ""},
		{"isolator/fence/steps.go", "		{\"unmount\", unmount},\n		{\"verify\", verify},", "		{\"thaw\", thawAll},\n		{\"unmount\", unmount},\n		{\"verify\", verify},"},
	}, fencePkg, "TestHeavySuperblockFrozen"},
	{"14", "the next epoch is mounted while the last has users", one("isolator/unmounting.go", "	if !how.fence {\n		if err := s.waitUnused(", "	if false {\n		if err := s.waitUnused("), node, "TestUnmountWithUsers"},
	{"14b", "a claim is passed on within its node though it is asked back", one(decide, "	case c.Revoke:\n		return c, false, conflict(c, \"re-key", "	case false:\n		return c, false, conflict(c, \"re-key"), suite, "TestTransitions"},
	{"15", "an unmount of an earlier epoch takes the next down", one("isolator/unmounting.go", "int64(r.Caller.Started+10*time.Millisecond) < v.MountBoot", "int64(r.Caller.Started+10*time.Millisecond) < v.MountBoot && false"), node, "TestLateUnmount"},
	{"16", "a release is taken from whoever names the epoch", one(decide, "c.State != Held || c.Epoch != epoch || c.Node != node || c.NodeGeneration != generation || c.Nonce != nonce:", "c.State != Held || c.Epoch != epoch:"), suite, "TestTransitions"},
	{"17", "a root that was restored or replaced goes unnoticed", one("isolator/lease/authority.go", "case a.rootVersion != 0 && (root.UUID != a.root.UUID || root.Generation != a.root.Generation):", "case false:"), leasePkg, "TestKeeperAndRoot"},
	{"18", "an operator's word overrides a node that renews", one(decide, "case n != nil && n.Version != o.NodeVersion && n.Alive && n.Generation == c.NodeGeneration && !o.Renewing:", "case false:"), suite, "TestTransitions"},
	{"18b", "an operator's word is taken for another epoch than the one shown", one(decide, "case c.State == Free || c.Epoch != o.Epoch || c.Node != o.Node || c.NodeGeneration != o.Generation:", "case c.State == Free:"), suite, "TestTransitions"},
	{"19", "a live record of another boot is taken over at once", one(holder, "	return standing\n}", "	h.take(record)\n	return unverified\n}"), leasePkg, "TestStart"},
	{"20", "the wait does not allow for clocks that run at another rate", one("isolator/lease/timing.go", "float64(time.Millisecond) * (1 + rho) / (1 - rho)", "float64(time.Millisecond)"), leasePkg, "TestTimings"},
	{"20b", "a mount goes on when its intent cannot be journaled", one("isolator/mounting.go", "	if err := m.s.journal.Append(\"mount\", \"driver\", journal.Intent, m.v); err != nil {", "	if err := m.s.journal.Append(\"mount\", \"driver\", journal.Intent, m.v); false {"), node, "TestHeavyFullDisk"},
}
