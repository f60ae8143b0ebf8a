// Package mesos is the framework's way to a Mesos master and to agents' sandboxes, over the v1 HTTP API in protobuf. It finds
// the leading master, subscribes and stays subscribed, decodes events into scheduler events, and encodes the
// scheduler's calls. It decides nothing: what an event means is package scheduler's business.
//
// mesos-go gives the message types and their codec. Its HTTP client is not used: any failed call closes its event stream, it retries
// refusals, and its frame reader takes neither large frames nor hostile lengths.
package mesos
