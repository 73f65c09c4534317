'use strict'
// Writes in transactions, which are read as a whole or not at all, and prints how each ended.
//   node transactions.js write BOOTSTRAP TOPIC ID
//   node transactions.js copy BOOTSTRAP TOPIC OUTPUT GROUP ID [--abort-every N]
//
// write makes a transaction of each line of stdin, {"records": [{"key", "value", "partition"}], "commit": true}.
// copy reads a topic in a consumer group and writes each value, in upper case, to another one. The copies and the
// position behind what was read are one transaction, so each record is copied exactly once, also where this process
// is killed and started again. kafkajs does not say which member a position is from, so members that go on at the same
// time could copy a record twice in a rebalance: have one.

const readline = require('node:readline')
const { parseArgs } = require('node:util')
const { Kafka, Partitioners, logLevel } = require('kafkajs')
require('./codecs')

const print = (transaction) => process.stdout.write(JSON.stringify({ transaction }) + '\n')

function client(bootstrap, transactionalId) {
  const kafka = new Kafka({
    brokers: bootstrap.split(','),
    logLevel: logLevel.NOTHING, // it takes a transaction that is still being ended for an error
    // The next transaction has to wait until the one before is ended everywhere.
    retry: { initialRetryTime: 20, maxRetryTime: 1000, retries: 50 },
  })
  const producer = kafka.producer({
    transactionalId,
    idempotent: true,
    maxInFlightRequests: 1, // kafkajs keeps the order of an idempotent producer's batches only so
    createPartitioner: Partitioners.DefaultPartitioner,
  })
  return { kafka, producer }
}

async function write(bootstrap, topic, id) {
  const { producer } = client(bootstrap, id)
  await producer.connect()
  for await (const line of readline.createInterface({ input: process.stdin, crlfDelay: Infinity })) {
    if (!line) continue
    const { records, commit } = JSON.parse(line)
    const messages = records.map(({ key = null, value, partition }) => ({ key, value, partition }))
    const transaction = await producer.transaction()
    await transaction.send({ topic, messages })
    if (commit) await transaction.commit()
    else await transaction.abort()
    print(commit ? 'committed' : 'aborted')
  }
  await producer.disconnect()
}

async function copy(bootstrap, topic, output, groupId, id, abortEvery) {
  const { kafka, producer } = client(bootstrap, id)
  // kafkajs reads what is committed unless told otherwise. Small batches make small transactions; a member
  // that dies without leaving is missed after the session timeout.
  const consumer = kafka.consumer({
    groupId,
    maxWaitTimeInMs: 200,
    maxBytesPerPartition: 1024,
    sessionTimeout: 6_000,
    heartbeatInterval: 1_000,
  })
  consumer.on(consumer.events.CRASH, ({ payload }) => {
    console.error(`the consumer failed: ${payload.error.message}`)
    if (!payload.restart) process.exit(1)
  })
  await producer.connect()
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  let count = 0
  const running = consumer.run({
    autoCommit: false, // positions are committed in the transactions
    eachBatchAutoResolve: false,
    eachBatch: async ({ batch: { partition, messages }, resolveOffset }) => {
      const transaction = await producer.transaction()
      try {
        const copies = messages.map(({ key, value }) => ({ key, value: value.toString().toUpperCase() }))
        await transaction.send({ topic: output, messages: copies })
        const last = messages[messages.length - 1].offset
        const position = { partition, offset: String(BigInt(last) + 1n) }
        await transaction.sendOffsets({ consumerGroupId: groupId, topics: [{ topic, partitions: [position] }] })
        count += 1
        if (abortEvery && count % abortEvery === 0) throw new Error('as it was asked for')
        await transaction.commit()
        print('committed')
        resolveOffset(last)
      } catch (error) {
        await transaction.abort()
        print('aborted')
        // What is not resolved is read again.
        consumer.seek({ topic, partition, offset: messages[0].offset })
      }
    },
  })
  const leave = async () => {
    await running // has joined: only a member can leave
    await consumer.disconnect() // ends the batch at hand, then leaves the group
    await producer.disconnect()
    process.exit(0)
  }
  process.once('SIGTERM', leave)
  process.once('SIGINT', leave)
  await running
}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { 'abort-every': { type: 'string', default: '0' } },
  })
  const [command, ...args] = positionals
  if (command === 'write' && args.length === 3) return write(...args)
  if (command === 'copy' && args.length === 5) return copy(...args, Number(values['abort-every']))
  console.error('usage: transactions write BOOTSTRAP TOPIC ID')
  console.error('       transactions copy BOOTSTRAP TOPIC OUTPUT GROUP ID [--abort-every N]')
  process.exit(2)
}

main().catch((error) => {
  console.error(`it failed: ${error.message}`)
  process.exit(1)
})
