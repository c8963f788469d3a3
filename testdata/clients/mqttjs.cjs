// Drives MQTT.js by lines of JSON: a request is {n, op, c, ...}, its answer {n, ...} or {n, error}. What comes in
// between is {c, message} or {c, closed}. clients_test.go has the other end.
const fs = require('fs')
const mqtt = require('mqtt')

const protocols = { 3: 'MQIsdp', 4: 'MQTT', 5: 'MQTT' }
const clients = {}
const say = line => process.stdout.write(JSON.stringify(line) + '\n')

function connect ({ c, options: o }) {
  const v5 = o.version === 5
  const client = mqtt.connect(o.url, {
    protocolVersion: o.version,
    protocolId: protocols[o.version],
    clientId: o.id,
    clean: o.clean,
    keepalive: o.keepAlive || 60,
    username: o.user || undefined,
    password: o.password || undefined,
    reconnectPeriod: o.reconnect ? 20 : 0,
    ca: o.ca ? fs.readFileSync(o.ca) : undefined,
    cert: o.cert ? fs.readFileSync(o.cert) : undefined,
    key: o.key ? fs.readFileSync(o.key) : undefined,
    properties: v5 ? { sessionExpiryInterval: o.expiry, receiveMaximum: o.receiveMaximum || undefined } : undefined,
    will: o.will && {
      topic: o.will.topic, payload: o.will.payload, qos: o.will.qos || 0, retain: !!o.will.retain,
      properties: v5 && o.willDelay ? { willDelayInterval: o.willDelay } : undefined,
    },
  })
  clients[c] = client
  client.on('message', (topic, payload, p) => say({ c, message: received(topic, payload, p) }))
  client.on('close', () => say({ c, closed: true }))
  return new Promise((resolve, reject) => {
    client.once('connect', ack => resolve({ present: ack.sessionPresent }))
    client.on('error', reject)
  })
}

function received (topic, payload, p) {
  const props = p.properties || {}
  const user = []
  for (const [key, values] of Object.entries(props.userProperties || {})) {
    for (const value of [].concat(values)) user.push([key, value])
  }
  return {
    topic, payload: payload.length > 1e6 ? payload.length + ' ' + payload.toString('latin1', 0, 10) : payload.toString(), qos: p.qos, retain: p.retain,
    contentType: props.contentType, responseTopic: props.responseTopic, correlation: props.correlationData && props.correlationData.toString(),
    user, expiry: props.messageExpiryInterval, ids: [].concat(props.subscriptionIdentifier || []),
  }
}

async function publish ({ c, message: m }) {
  const userProperties = {}
  for (const [key, value] of m.user || []) userProperties[key] = value
  const properties = {}
  if (m.contentType) properties.contentType = m.contentType
  if (m.responseTopic) properties.responseTopic = m.responseTopic
  if (m.correlation) properties.correlationData = Buffer.from(m.correlation)
  if (m.expiry) properties.messageExpiryInterval = m.expiry
  if (m.alias) properties.topicAlias = m.alias
  if (m.user) properties.userProperties = userProperties
  const payload = m.size ? Buffer.alloc(m.size, m.payload) : m.payload
  const options = { qos: m.qos || 0, retain: !!m.retain }
  if (Object.keys(properties).length) options.properties = properties
  await clients[c].publishAsync(m.topic, payload, options)
  return {}
}

async function subscribe ({ c, filter, options: o }) {
  const properties = o.subID ? { subscriptionIdentifier: o.subID } : undefined
  const granted = await clients[c].subscribeAsync(filter, { qos: o.qos || 0, rap: !!o.rap, rh: o.rh || 0, nl: !!o.noLocal, properties })
  return { granted: granted.map(g => g.qos) }
}

const ops = {
  connect,
  publish,
  subscribe,
  unsubscribe: async ({ c, filter }) => { await clients[c].unsubscribeAsync(filter); return {} },
  end: async ({ c }) => { await clients[c].endAsync(); return {} },
  cut: async ({ c }) => { clients[c].options.reconnectPeriod = 0; clients[c].stream.destroy(); return {} },
}

require('readline').createInterface({ input: process.stdin }).on('line', line => {
  const request = JSON.parse(line)
  ops[request.op](request).then(
    answer => say({ n: request.n, ...answer }),
    e => say({ n: request.n, error: e.message || String(e) }))
}).on('close', () => process.exit(0))
