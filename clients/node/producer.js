'use strict'
// Writes JSON lines from stdin to a topic, and prints each record's place once it is acknowledged.
//   node producer.js BOOTSTRAP TOPIC [--compression none|gzip|snappy|lz4|zstd]

const readline = require('node:readline')
const { parseArgs } = require('node:util')
const { Kafka, Partitioners, logLevel } = require('kafkajs')
const { codecs } = require('./codecs')

// kafkajs makes one batch per partition of what one send() is given, however large, and the broker
// takes a batch of a megabyte at most.
const MOST_RECORDS = 1000
const MOST_BYTES = 500_000

// kafkajs answers with a base offset per partition only, so remember where each record goes.
const rememberingPartitioner = () => {
  const partitioner = Partitioners.DefaultPartitioner()
  return (args) => (args.message.sentTo = partitioner(args))
}

function parse(line) {
  const { key = null, value, headers = {}, timestamp, partition } = JSON.parse(line)
  if (value === undefined) throw new Error(`a record without a value: ${line}`)
  const nullHeader = Object.keys(headers).find((name) => headers[name] === null)
  if (nullHeader) throw new Error(`kafkajs can't send a null header: '${nullHeader}'`)
  const time = timestamp === undefined ? undefined : String(timestamp)
  return { key, value, headers, timestamp: time, partition }
}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { compression: { type: 'string', default: 'none' } },
  })
  const [bootstrap, topic] = positionals
  const compression = codecs[values.compression]
  if (positionals.length !== 2 || compression === undefined) {
    console.error('usage: producer BOOTSTRAP TOPIC [--compression none|gzip|snappy|lz4|zstd]')
    process.exit(2)
  }
  const kafka = new Kafka({ brokers: bootstrap.split(','), logLevel: logLevel.WARN })
  const producer = kafka.producer({
    idempotent: true,
    maxInFlightRequests: 1, // kafkajs keeps the order of an idempotent producer's batches only so
    createPartitioner: rememberingPartitioner,
  })
  await producer.connect()

  let messages = []
  let bytes = 0
  const send = async () => {
    const results = await producer.send({ topic, messages, compression, acks: -1 })
    const next = new Map(results.map((r) => [r.partition, Number(r.baseOffset)]))
    for (const { sentTo } of messages) {
      const offset = next.get(sentTo)
      // kafkajs drops such records without a word.
      if (offset === undefined) throw new Error(`there is no partition ${sentTo}`)
      next.set(sentTo, offset + 1)
      process.stdout.write(JSON.stringify({ partition: sentTo, offset }) + '\n')
    }
    messages = []
    bytes = 0
  }

  const input = readline.createInterface({ input: process.stdin, crlfDelay: Infinity })
  const lines = input[Symbol.asyncIterator]()
  let next = lines.next()
  for (;;) {
    // Send as soon as there is no further line yet, rather than at the end of the input.
    const waited = new Promise((resolve) => setImmediate(resolve, 'nothing yet'))
    const line = messages.length ? await Promise.race([next, waited]) : await next
    if (line === 'nothing yet') {
      await send()
      continue
    }
    if (line.done) break
    next = lines.next()
    if (!line.value) continue
    if (messages.length && (messages.length >= MOST_RECORDS || bytes + line.value.length > MOST_BYTES)) await send()
    messages.push(parse(line.value))
    bytes += line.value.length
  }
  if (messages.length) await send()
  await producer.disconnect()
}

main().catch((error) => {
  console.error(`the producer failed: ${error.message}`)
  process.exit(1)
})
