// Baileys, driven line by line: commands come in on stdin, events go out on stdout, one JSON object each.
//
//   node client.mjs WS_URL AUTH_DIR
//
// in:  {"send":{"to":"5511…","text":"…"}}   {"exit":true}
// out: {"event":"qr","qr"}  {"event":"open","me"}  {"event":"message","id","from","text","fromMe"}
//      {"event":"receipt","id","status"}  {"event":"sent","id"}  {"event":"closed","code"}  {"event":"error","error"}

import { createInterface } from 'node:readline'
import makeWASocket, { Browsers, DisconnectReason, jidDecode, proto, useMultiFileAuthState } from 'baileys'
import pino from 'pino'

const [url, directory] = process.argv.slice(2)
const say = event => process.stdout.write(JSON.stringify(event) + '\n')
const logger = pino({ level: process.env.BAILEYS_LOG ?? 'silent' }, pino.destination(2))
const user = jid => (jid ? jidDecode(jid)?.user : undefined)

let socket
// What was sent, for those who ask for it again.
const sent = new Map()

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
		for (const { key, message } of messages) {
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
	if (command.send) {
		const message = await socket.sendMessage(`${command.send.to}@s.whatsapp.net`, { text: command.send.text })
		sent.set(message.key.id, message.message)
		say({ event: 'sent', id: message.key.id })
	}
}

process.on('unhandledRejection', error => say({ event: 'error', error: String(error?.stack ?? error) }))
const commands = createInterface({ input: process.stdin })
commands.on('line', line => obey(JSON.parse(line)).catch(error => say({ event: 'error', error: String(error?.stack ?? error) })))
commands.on('close', () => process.exit(0))
await connect()
