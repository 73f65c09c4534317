'use strict'
// Prints a topic's records, read in a consumer group, as JSON lines.
//   node consumer.js BOOTSTRAP TOPIC GROUP [--from-timestamp MS]

const { parseArgs } = require('node:util')
const { Kafka, logLevel } = require('kafkajs')
require('./codecs')

const usage = (message) => {
  console.error(message)
  process.exit(2)
}
const print = (objects) => process.stdout.write(objects.map((o) => JSON.stringify(o) + '\n').join(''))
const text = (bytes) => (bytes === null || bytes === undefined ? null : bytes.toString())

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      'from-timestamp': { type: 'string' },
      assignor: { type: 'string' },
      'instance-id': { type: 'string' },
    },
  })
  const [bootstrap, topic, groupId] = positionals
  if (positionals.length !== 3) usage('usage: consumer BOOTSTRAP TOPIC GROUP [--from-timestamp MS]')
  if (values.assignor) usage(`kafkajs has its round robin assignor only, not '${values.assignor}'`)
  if (values['instance-id']) usage('kafkajs has no static members')

  const kafka = new Kafka({ brokers: bootstrap.split(','), logLevel: logLevel.WARN })
  // A heartbeat is sent between two fetches, so a fetch must not wait long. A member that dies
  // without leaving is missed after the session timeout.
  const consumer = kafka.consumer({ groupId, maxWaitTimeInMs: 500, sessionTimeout: 10_000 })

  let starts = []
  if (values['from-timestamp']) {
    const admin = kafka.admin()
    await admin.connect()
    // The end of the partition where no record is that late.
    starts = await admin.fetchTopicOffsetsByTimestamp(topic, Number(values['from-timestamp']))
    await admin.disconnect()
  }

  let assigned = []
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    assigned = payload.memberAssignment[topic] ?? []
    print([{ event: 'assigned', partitions: assigned }])
    for (const { partition, offset } of starts) {
      if (assigned.includes(partition)) consumer.seek({ topic, partition, offset })
    }
  })
  consumer.on(consumer.events.REBALANCING, () => print([{ event: 'revoked', partitions: assigned }]))
  consumer.on(consumer.events.CRASH, ({ payload }) => {
    console.error(`the consumer failed: ${payload.error.message}`)
    if (!payload.restart) process.exit(1)
  })

  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  const running = consumer.run({
    autoCommit: false,
    eachBatch: async ({ batch: { partition, messages } }) => {
      print(
        messages.map(({ offset, timestamp, key, value, headers }) => ({
          partition,
          offset: Number(offset),
          timestamp: Number(timestamp),
          key: text(key),
          value: text(value),
          headers: Object.fromEntries(Object.entries(headers).map(([name, v]) => [name, text(v)])),
        })),
      )
      // A position is the offset of the next record. Where the commit is refused because of a
      // rebalance, kafkajs catches what this throws, joins again and goes on.
      const offset = String(BigInt(messages[messages.length - 1].offset) + 1n)
      await consumer.commitOffsets([{ topic, partition, offset }])
    },
  })

  const leave = async () => {
    await running // has joined: only a member can leave
    await consumer.disconnect() // ends the batch at hand, then leaves the group
    process.exit(0)
  }
  process.once('SIGTERM', leave)
  process.once('SIGINT', leave)
  await running
}

main().catch((error) => {
  console.error(`the consumer failed: ${error.message}`)
  process.exit(1)
})
