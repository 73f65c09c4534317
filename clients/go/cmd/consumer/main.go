// Command consumer prints a topic's records, read in a consumer group, as JSON lines.
//
//	consumer BOOTSTRAP TOPIC GROUP [--from-timestamp MS] [--assignor range|cooperative-sticky]
//	         [--instance-id ID]
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// output is written by the reading loop and by the group's callbacks.
var (
	output = bufio.NewWriter(os.Stdout)
	lock   sync.Mutex
)

func fail(code int, format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(code)
}

func printAll(values ...any) {
	lock.Lock()
	defer lock.Unlock()
	encoder := json.NewEncoder(output)
	encoder.SetEscapeHTML(false)
	for _, value := range values {
		if err := encoder.Encode(value); err != nil {
			fail(1, "cannot print %v: %v", value, err)
		}
	}
	if err := output.Flush(); err != nil {
		fail(1, "cannot print: %v", err)
	}
}

type event struct {
	Event      string  `json:"event"`
	Partitions []int32 `json:"partitions"`
}

func printEvent(name string) func(context.Context, *kgo.Client, map[string][]int32) {
	return func(_ context.Context, _ *kgo.Client, topics map[string][]int32) {
		all := []int32{}
		for _, partitions := range topics {
			all = append(all, partitions...)
		}
		printAll(event{name, all})
	}
}

type line struct {
	Partition int32              `json:"partition"`
	Offset    int64              `json:"offset"`
	Timestamp int64              `json:"timestamp"`
	Key       *string            `json:"key"`
	Value     *string            `json:"value"`
	Headers   map[string]*string `json:"headers"`
}

func text(bytes []byte) *string {
	if bytes == nil {
		return nil // null, which is not the same as empty
	}
	s := string(bytes)
	return &s
}

func lineOf(r *kgo.Record) line {
	headers := map[string]*string{}
	for _, h := range r.Headers {
		headers[h.Key] = text(h.Value)
	}
	return line{r.Partition, r.Offset, r.Timestamp.UnixMilli(), text(r.Key), text(r.Value), headers}
}

func options(args []string) []kgo.Opt {
	flags := flag.NewFlagSet("consumer BOOTSTRAP TOPIC GROUP", flag.ExitOnError)
	since := flags.Int64("from-timestamp", -1, "start where the records of this time in `ms` are")
	assignor := flags.String("assignor", "range", "`range` or cooperative-sticky")
	instance := flags.String("instance-id", "", "the `id` of a static member")
	if len(args) < 3 {
		flags.Usage()
		os.Exit(2)
	}
	_ = flags.Parse(args[3:])
	balancers := map[string]kgo.GroupBalancer{
		"range":              kgo.RangeBalancer(),
		"cooperative-sticky": kgo.CooperativeStickyBalancer(),
	}
	balancer, known := balancers[*assignor]
	if !known {
		fail(2, "no assignor '%s'", *assignor)
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(strings.Split(args[0], ",")...),
		kgo.ConsumeTopics(args[1]),
		kgo.ConsumerGroup(args[2]),
		kgo.Balancers(balancer),
		kgo.AllowAutoTopicCreation(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
		// After which a member that died without leaving is missed.
		kgo.SessionTimeout(10 * time.Second),
		// No rebalance between a poll and the commit of what it returned.
		kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsAssigned(printEvent("assigned")),
		kgo.OnPartitionsRevoked(printEvent("revoked")),
		kgo.OnPartitionsLost(printEvent("revoked")),
	}
	if *instance != "" {
		opts = append(opts, kgo.InstanceID(*instance))
	}
	if *since >= 0 {
		// In place of the committed positions; the end where no record is that late.
		opts = append(opts, kgo.AdjustFetchOffsetsFn(
			func(_ context.Context, topics map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
				for _, partitions := range topics {
					for partition := range partitions {
						partitions[partition] = kgo.NewOffset().AfterMilli(*since)
					}
				}
				return topics, nil
			}))
	}
	return opts
}

func main() {
	client, err := kgo.NewClient(options(os.Args[1:])...)
	if err != nil {
		fail(1, "the consumer failed: %v", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	for ctx.Err() == nil {
		fetches := client.PollFetches(ctx)
		fetches.EachError(func(topic string, partition int32, err error) {
			if ctx.Err() == nil {
				fail(1, "cannot read %s/%d: %v", topic, partition, err)
			}
		})
		lines := []any{}
		fetches.EachRecord(func(r *kgo.Record) { lines = append(lines, lineOf(r)) })
		if len(lines) > 0 {
			printAll(lines...)
			if err := client.CommitUncommittedOffsets(context.Background()); err != nil {
				// After a rebalance somebody else may own the partition, and reads this again.
				fmt.Fprintf(os.Stderr, "not committed: %v\n", err)
			}
		}
		client.AllowRebalance()
	}
	client.CloseAllowingRebalance() // leaves the group
}
