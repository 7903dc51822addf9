// Baileys, driven line by line: commands come in on stdin, events go out on stdout, one JSON object each.
//
//   node client.mjs WS_URL AUTH_DIR
//
// in:  {"send":{"to":"5511…","text":"…"}}   {"exit":true}
//      {"post":{"to":"5511…","content":{…},"quoted":"ID","options":{…}}}: anything that Baileys can send; files are base64, and
//      `react.key`, `edit` and `delete` are ids of messages of that chat
//      {"relay":{"to":"5511…","message":{…}}}: a message as it is, bytes in base64
//      {"receipt":{"to":"5511…","id":"…","type":"played"}}
// out: {"event":"qr","qr"}  {"event":"open","me"}  {"event":"message","id","from","text","fromMe"}
//      {"event":"content","id","fromMe","content":{…},"sha256","size"}: any message, and what its file holds; bytes are base64
//      {"event":"receipt","id","status"}  {"event":"sent","id"}  {"event":"posted","id"}  {"event":"closed","code"}  {"event":"error","error"}

import { createHash } from 'node:crypto'
import { createInterface } from 'node:readline'
import makeWASocket, {
	Browsers,
	DisconnectReason,
	downloadContentFromMessage,
	generateMessageIDV2,
	jidDecode,
	normalizeMessageContent,
	proto,
	useMultiFileAuthState
} from 'baileys'
import pino from 'pino'

const [url, directory] = process.argv.slice(2)
const say = event => process.stdout.write(JSON.stringify(event) + '\n')
const logger = pino({ level: process.env.BAILEYS_LOG ?? 'silent' }, pino.destination(2))
const user = jid => (jid ? jidDecode(jid)?.user : undefined)

let socket
// What was sent, for those who ask for it again.
const sent = new Map()
// Every message so far, for what is about one of them.
const known = new Map()

const FILES = { imageMessage: 'image', videoMessage: 'video', audioMessage: 'audio', documentMessage: 'document', stickerMessage: 'sticker' }

async function sayContent({ key, message }) {
	const content = normalizeMessageContent(message)
	if (!content) return
	const field = Object.keys(FILES).find(name => content[name])
	const event = { event: 'content', id: key.id, fromMe: !!key.fromMe, content: proto.Message.toObject(content, { bytes: String, enums: String, longs: Number }) }
	if (field) {
		const hash = createHash('sha256')
		event.size = 0
		for await (const chunk of await downloadContentFromMessage(content[field], FILES[field], { host: new URL(url).host })) {
			hash.update(chunk)
			event.size += chunk.length
		}
		event.sha256 = hash.digest('hex')
	}
	say(event)
}

async function connect() {
	const { state, saveCreds } = await useMultiFileAuthState(directory)
	socket = makeWASocket({
		auth: state,
		browser: Browsers.ubuntu('Chrome'),
		getMessage: async key => sent.get(key.id),
		logger,
		// Without this, events are held back until a history arrives.
		shouldSyncHistoryMessage: () => false,
		version: [2, 3000, 1],
		waWebSocketUrl: url
	})
	socket.ev.on('creds.update', saveCreds)
	socket.ev.on('connection.update', ({ connection, lastDisconnect, qr }) => {
		if (qr) say({ event: 'qr', qr })
		if (connection === 'open') say({ event: 'open', me: user(socket.user?.id) })
		if (connection === 'close') {
			const code = lastDisconnect?.error?.output?.statusCode
			// A pairing ends with a restart; it is no news.
			if (code === DisconnectReason.restartRequired) void connect()
			else say({ event: 'closed', code })
		}
	})
	socket.ev.on('messages.upsert', ({ messages }) => {
		for (const whole of messages) {
			const { key, message } = whole
			known.set(key.id, whole)
			if (message) sayContent(whole).catch(error => say({ event: 'error', error: String(error?.stack ?? error) }))
			const text = message?.conversation ?? message?.extendedTextMessage?.text
			if (!text) continue
			const from = [key.remoteJidAlt, key.remoteJid].find(jid => jid?.endsWith('@s.whatsapp.net'))
			say({ event: 'message', id: key.id, from: user(from ?? key.remoteJid), text, fromMe: !!key.fromMe })
		}
	})
	socket.ev.on('messages.update', updates => {
		for (const { key, update } of updates) {
			if (update.status == null) continue
			say({ event: 'receipt', id: key.id, status: proto.WebMessageInfo.Status[update.status] })
		}
	})
}

async function obey(command) {
	if (command.exit) process.exit(0)
	if (command.post) await post(command.post)
	if (command.relay) await relay(command.relay)
	if (command.receipt) {
		const { to, id, type } = command.receipt
		const { key } = known.get(id) ?? { key: { remoteJid: `${to}@s.whatsapp.net` } }
		await socket.sendReceipt(key.remoteJid, undefined, [id], type)
	}
	if (command.send) {
		const message = await socket.sendMessage(`${command.send.to}@s.whatsapp.net`, { text: command.send.text })
		sent.set(message.key.id, message.message)
		say({ event: 'sent', id: message.key.id })
	}
}

async function relay({ to, message }) {
	const whole = proto.Message.fromObject(message)
	const id = generateMessageIDV2(socket.user?.id)
	sent.set(id, whole)
	await socket.relayMessage(`${to}@s.whatsapp.net`, whole, { messageId: id })
	say({ event: 'posted', id })
}

async function post({ to, content, quoted, options }) {
	const chat = `${to}@s.whatsapp.net`
	const keyOf = id => ({ remoteJid: chat, fromMe: !!known.get(id)?.key.fromMe, id })
	for (const kind of Object.values(FILES)) {
		if (typeof content[kind] === 'string') content[kind] = Buffer.from(content[kind], 'base64')
	}
	if (content.product) content.product.productImage = Buffer.from(content.product.productImage, 'base64')
	if (content.react) content.react.key = keyOf(content.react.key)
	if (content.edit) content.edit = keyOf(content.edit)
	if (content.delete) content.delete = keyOf(content.delete)
	const message = await socket.sendMessage(chat, content, { ...options, ...(quoted && { quoted: known.get(quoted) }) })
	sent.set(message.key.id, message.message)
	known.set(message.key.id, message)
	say({ event: 'posted', id: message.key.id })
}

process.on('unhandledRejection', error => say({ event: 'error', error: String(error?.stack ?? error) }))
const commands = createInterface({ input: process.stdin })
commands.on('line', line => obey(JSON.parse(line)).catch(error => say({ event: 'error', error: String(error?.stack ?? error) })))
commands.on('close', () => process.exit(0))
await connect()
