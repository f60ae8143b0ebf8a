// Package detect finds the leading Mesos master in ZooKeeper, and follows it.
//
// Masters that stand for election each put an ephemeral sequential znode `json.info_<sequence>` under one path; its content is the
// master's MasterInfo as JSON, and the lowest sequence leads. (Mesos before 0.24 wrote `info_<sequence>` with a binary protobuf. When
// such a one leads, that is said: it is too old.) Other znodes under the path, like the replicated log's, mean nothing here.
//
// ZooKeeper is needed to learn of a change, and for nothing else: while it is away, the last known leader stays.
package detect
