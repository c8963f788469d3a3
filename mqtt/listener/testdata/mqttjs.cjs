// Drives MQTT.js against a broker: node mqttjs.cjs URL [CA]. MQTT_JS is the path of the package.
// Ends with 0 if every version of MQTT works, with QoS 0 to 2, a will, a large message and a session that is resumed.
const fs = require('fs')
const mqtt = require(process.env.MQTT_JS)

const [url, ca] = process.argv.slice(2)
const base = ca ? { ca: fs.readFileSync(ca) } : {}
const versions = { 3: 'MQIsdp', 4: 'MQTT', 5: 'MQTT' }
const patience = 20000

function within (what, promise) {
  let timer
  const late = new Promise((resolve, reject) => {
    timer = setTimeout(() => reject(new Error('still waiting for ' + what)), patience)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

function next (client) {
  return within('a message', new Promise(resolve => client.once('message', (topic, payload, packet) => resolve({ topic, payload, packet }))))
}

async function drive (version) {
  const options = {
    ...base, protocolVersion: version, protocolId: versions[version], clientId: 'js' + version, clean: false, reconnectPeriod: 0,
    ...(version === 5 ? { properties: { sessionExpiryInterval: 60 } } : {}),
  }
  const connect = more => within('CONNACK', mqtt.connectAsync(url, { ...options, ...more }))

  let client = await connect()
  for (const qos of [0, 1, 2]) {
    const topic = `js/${version}/${qos}`
    await within('SUBACK', client.subscribeAsync(topic, { qos }))
    const payload = Buffer.alloc(qos === 2 ? 300000 : 10, 'x')
    const arrived = next(client)
    await within('the publish', client.publishAsync(topic, payload, { qos }))
    const got = await arrived
    if (got.topic !== topic || !got.payload.equals(payload) || got.packet.qos !== qos) throw new Error('wrong message on ' + topic)
  }
  await client.endAsync()

  const other = await within('CONNACK', mqtt.connectAsync(url, {
    ...base, protocolVersion: version, protocolId: versions[version], clientId: 'other' + version, reconnectPeriod: 0,
    will: { topic: `js/${version}/1`, payload: 'gone', qos: 1, retain: false },
  }))
  await within('the publish', other.publishAsync(`js/${version}/1`, 'while away', { qos: 1 }))

  client = mqtt.connect(url, options)
  const messages = []
  let wake = () => {}
  client.on('message', (topic, payload) => { messages.push(payload.toString()); wake() })
  const present = await within('CONNACK', new Promise((resolve, reject) => {
    client.once('connect', ack => resolve(ack.sessionPresent))
    client.once('error', reject)
  }))
  if (version !== 3 && !present) throw new Error('the session is not there')
  const message = async want => {
    while (!messages.includes(want)) await within(want, new Promise(resolve => { wake = resolve }))
  }
  await message('while away')
  other.stream.destroy()
  await message('gone')
  await client.endAsync()
}

(async () => {
  for (const version of [3, 4, 5]) {
    await drive(version).catch(e => { throw new Error(`version ${version}: ${e.message}`) })
  }
})().then(() => process.exit(0), e => { console.error(e); process.exit(1) })
