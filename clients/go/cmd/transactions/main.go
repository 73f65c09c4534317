// Command transactions writes in transactions, which are read as a whole or not at all, and prints how each
// ended.
//
//	transactions write BOOTSTRAP TOPIC ID
//	transactions copy BOOTSTRAP TOPIC OUTPUT GROUP ID [--abort-every N]
//
// write makes a transaction of each line of stdin, such as
//
//	{"records": [{"key": "k", "value": "v", "partition": 0}], "commit": true}
//
// copy reads a topic in a consumer group and writes each value, in upper case, to another one. The copies and the
// position behind what was read are one transaction, so each record is copied exactly once, whatever becomes of this
// process.
//
// A transactional id belongs to one producer at a time. A new one of the same id ends what the one before has
// left open, and shuts it out.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func fail(code int, format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(code)
}

func printEnd(committed bool) {
	how := "aborted"
	if committed {
		how = "committed"
	}
	fmt.Printf("{\"transaction\": \"%s\"}\n", how)
}

type record struct {
	Key       *string `json:"key"`
	Value     *string `json:"value"`
	Partition *int32  `json:"partition"`
}

type transaction struct {
	Records []record `json:"records"`
	Commit  bool     `json:"commit"`
}

func bytesOf(text *string) []byte {
	if text == nil {
		return nil // null, which is not the same as empty
	}
	return []byte(*text)
}

// chosen takes the partition that a record names, and Kafka's own choice where it names none.
func chosen(topic string) func(*kgo.Record, int) int {
	inner := kgo.StickyKeyPartitioner(nil).ForTopic(topic)
	return func(r *kgo.Record, n int) int {
		if r.Partition >= 0 {
			return int(r.Partition)
		}
		return inner.Partition(r, n)
	}
}

func write(ctx context.Context, bootstrap, topic, id string) {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(bootstrap, ",")...),
		kgo.DefaultProduceTopic(topic),
		kgo.AllowAutoTopicCreation(),
		kgo.TransactionalID(id),
		kgo.RecordPartitioner(kgo.BasicConsistentPartitioner(chosen)),
	)
	if err != nil {
		fail(1, "the producer failed: %v", err)
	}
	defer client.Close()
	input := bufio.NewReaderSize(os.Stdin, 1<<16)
	for {
		text, readError := input.ReadBytes('\n')
		if len(bytes.TrimSpace(text)) > 0 {
			var t transaction
			if err := json.Unmarshal(text, &t); err != nil {
				fail(1, "not a transaction: %v: %s", err, text)
			}
			one(ctx, client, t)
		}
		if readError != nil {
			return // the end of the input
		}
	}
}

func one(ctx context.Context, client *kgo.Client, t transaction) {
	if err := client.BeginTransaction(); err != nil {
		fail(1, "a transaction does not begin: %v", err)
	}
	records := []*kgo.Record{}
	for _, r := range t.Records {
		record := &kgo.Record{Key: bytesOf(r.Key), Value: bytesOf(r.Value), Partition: -1}
		if r.Partition != nil {
			record.Partition = *r.Partition
		}
		records = append(records, record)
	}
	commit := t.Commit
	if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		fmt.Fprintf(os.Stderr, "a record failed: %v\n", err)
		commit = false
	}
	if err := client.EndTransaction(ctx, kgo.TransactionEndTry(commit)); err != nil {
		fail(1, "a transaction does not end: %v", err)
	}
	printEnd(commit)
}

func copyAll(ctx context.Context, bootstrap, topic, output, group, id string, abortEvery int) {
	// The session begins and ends transactions, commits positions in them, and after an abort, or a
	// rebalance, which ends in one, reads from the last committed positions again.
	session, err := kgo.NewGroupTransactSession(
		kgo.SeedBrokers(strings.Split(bootstrap, ",")...),
		kgo.TransactionalID(id),
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(topic),
		kgo.DefaultProduceTopic(output),
		kgo.AllowAutoTopicCreation(),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.RequireStableFetchOffsets(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		// After which a member that died without leaving is missed.
		kgo.SessionTimeout(6*time.Second),
	)
	if err != nil {
		fail(1, "the session failed: %v", err)
	}
	for count := 1; ctx.Err() == nil; {
		fetches := session.PollRecords(ctx, 10)
		fetches.EachError(func(topic string, partition int32, err error) {
			if ctx.Err() == nil {
				fail(1, "cannot read %s/%d: %v", topic, partition, err)
			}
		})
		if fetches.NumRecords() == 0 {
			continue
		}
		if err := session.Begin(); err != nil {
			fail(1, "a transaction does not begin: %v", err)
		}
		copies := []*kgo.Record{}
		fetches.EachRecord(func(r *kgo.Record) {
			copies = append(copies, &kgo.Record{Key: r.Key, Value: bytes.ToUpper(r.Value)})
		})
		commit := abortEvery == 0 || count%abortEvery != 0
		// What is begun is ended, also where the process is asked to stop meanwhile.
		ending := context.Background()
		if err := session.ProduceSync(ending, copies...).FirstErr(); err != nil {
			fmt.Fprintf(os.Stderr, "a record failed: %v\n", err)
			commit = false
		}
		committed, err := session.End(ending, kgo.TransactionEndTry(commit))
		if err != nil {
			fail(1, "a transaction does not end: %v", err)
		}
		printEnd(committed)
		count++
	}
	session.Close() // leaves the group
}

func main() {
	usage := "usage: transactions write BOOTSTRAP TOPIC ID\n" +
		"       transactions copy BOOTSTRAP TOPIC OUTPUT GROUP ID [--abort-every N]"
	args := os.Args[1:]
	switch {
	case len(args) == 4 && args[0] == "write":
		write(context.Background(), args[1], args[2], args[3])
	case len(args) >= 6 && args[0] == "copy":
		flags := flag.NewFlagSet("copy", flag.ExitOnError)
		abortEvery := flags.Int("abort-every", 0, "abort each `N`th transaction, and read its records again")
		_ = flags.Parse(args[6:])
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		copyAll(ctx, args[1], args[2], args[3], args[4], args[5], *abortEvery)
	default:
		fail(2, "%s", usage)
	}
}
