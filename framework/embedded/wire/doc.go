// Package wire turns Mesos v1 API messages into bytes and back, as a Mesos master does: JSON by
// protobuf's field names with the checks and refusals of Mesos, protobuf by mesos-go, and event
// streams in RecordIO frames.
//
// mesos-go's own JSON is not used: it prints null for empty lists, does not look for required
// fields and fails on enum values it does not know, where Mesos takes them as absent.
package wire
