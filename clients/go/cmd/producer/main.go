// Command producer writes JSON lines from stdin to a topic, and prints each record's place once it
// is acknowledged.
//
//	producer BOOTSTRAP TOPIC [--compression none|gzip|snappy|lz4|zstd]
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

var codecs = map[string]kgo.CompressionCodec{
	"none":   kgo.NoCompression(),
	"gzip":   kgo.GzipCompression(),
	"snappy": kgo.SnappyCompression(),
	"lz4":    kgo.Lz4Compression(),
	"zstd":   kgo.ZstdCompression(),
}

type line struct {
	Key       *string            `json:"key"`
	Value     *string            `json:"value"`
	Headers   map[string]*string `json:"headers"`
	Timestamp *int64             `json:"timestamp"`
	Partition *int32             `json:"partition"`
}

func bytesOf(text *string) []byte {
	if text == nil {
		return nil // null, which is not the same as empty
	}
	return []byte(*text)
}

func (l line) record() *kgo.Record {
	record := &kgo.Record{Key: bytesOf(l.Key), Value: bytesOf(l.Value), Partition: -1}
	for name, value := range l.Headers {
		record.Headers = append(record.Headers, kgo.RecordHeader{Key: name, Value: bytesOf(value)})
	}
	if l.Timestamp != nil {
		record.Timestamp = time.UnixMilli(*l.Timestamp)
	}
	if l.Partition != nil {
		record.Partition = *l.Partition
	}
	return record
}

// chosen takes the partition that a record names, and Kafka's own choice where it names none.
type chosen struct {
	kgo.TopicPartitioner
	kgo.TopicPartitionerOnNewBatch
}

func (c chosen) Partition(r *kgo.Record, n int) int {
	if r.Partition >= 0 {
		return int(r.Partition)
	}
	return c.TopicPartitioner.Partition(r, n)
}

func (c chosen) RequiresConsistency(r *kgo.Record) bool {
	return r.Partition >= 0 || c.TopicPartitioner.RequiresConsistency(r)
}

type partitioner struct{ kgo.Partitioner }

func (p partitioner) ForTopic(topic string) kgo.TopicPartitioner {
	inner := p.Partitioner.ForTopic(topic)
	return chosen{inner, inner.(kgo.TopicPartitionerOnNewBatch)}
}

func fail(code int, format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(code)
}

func main() {
	args, codec := os.Args[1:], "none"
	if len(args) == 4 && args[2] == "--compression" {
		args, codec = args[:2], args[3]
	}
	compression, known := codecs[codec]
	if len(args) != 2 || !known {
		fail(2, "usage: producer BOOTSTRAP TOPIC [--compression none|gzip|snappy|lz4|zstd]")
	}
	// Idempotent with acks=all, which is what franz-go does unless told otherwise.
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(args[0], ",")...),
		kgo.DefaultProduceTopic(args[1]),
		kgo.AllowAutoTopicCreation(),
		kgo.ProducerBatchCompression(compression),
		kgo.RecordPartitioner(partitioner{kgo.StickyKeyPartitioner(nil)}),
	)
	if err != nil {
		fail(1, "the producer failed: %v", err)
	}
	ctx := context.Background()
	input := bufio.NewReaderSize(os.Stdin, 1<<16)
	for {
		text, readError := input.ReadBytes('\n')
		if len(strings.TrimSpace(string(text))) > 0 {
			var l line
			if err := json.Unmarshal(text, &l); err != nil {
				fail(1, "not a record: %v: %s", err, text)
			}
			// Waits where many records are unacknowledged; the callbacks run one after the other.
			client.Produce(ctx, l.record(), func(r *kgo.Record, err error) {
				if err != nil {
					fail(1, "a record failed: %v", err)
				}
				fmt.Printf("{\"partition\": %d, \"offset\": %d}\n", r.Partition, r.Offset)
			})
		}
		if readError != nil {
			break // the end of the input
		}
	}
	if err := client.Flush(ctx); err != nil {
		fail(1, "the producer failed: %v", err)
	}
	client.Close()
}
