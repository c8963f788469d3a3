package packet

import "fmt"

// ReasonCode is a reason code of MQTT 5. Older versions have their own, smaller
// sets; the packets translate when they are written for or read from one.
type ReasonCode byte

const (
	Success             ReasonCode = 0x00
	NormalDisconnection ReasonCode = 0x00
	GrantedQoS0         ReasonCode = 0x00
	GrantedQoS1         ReasonCode = 0x01
	GrantedQoS2         ReasonCode = 0x02
	DisconnectWithWill  ReasonCode = 0x04

	NoMatchingSubscribers  ReasonCode = 0x10
	NoSubscriptionExisted  ReasonCode = 0x11
	ContinueAuthentication ReasonCode = 0x18
	Reauthenticate         ReasonCode = 0x19

	UnspecifiedError                    ReasonCode = 0x80
	MalformedPacket                     ReasonCode = 0x81
	ProtocolError                       ReasonCode = 0x82
	ImplementationSpecificError         ReasonCode = 0x83
	UnsupportedProtocolVersion          ReasonCode = 0x84
	ClientIdentifierNotValid            ReasonCode = 0x85
	BadUserNameOrPassword               ReasonCode = 0x86
	NotAuthorized                       ReasonCode = 0x87
	ServerUnavailable                   ReasonCode = 0x88
	ServerBusy                          ReasonCode = 0x89
	Banned                              ReasonCode = 0x8A
	ServerShuttingDown                  ReasonCode = 0x8B
	BadAuthenticationMethod             ReasonCode = 0x8C
	KeepAliveTimeout                    ReasonCode = 0x8D
	SessionTakenOver                    ReasonCode = 0x8E
	TopicFilterInvalid                  ReasonCode = 0x8F
	TopicNameInvalid                    ReasonCode = 0x90
	PacketIdentifierInUse               ReasonCode = 0x91
	PacketIdentifierNotFound            ReasonCode = 0x92
	ReceiveMaximumExceeded              ReasonCode = 0x93
	TopicAliasInvalid                   ReasonCode = 0x94
	PacketTooLarge                      ReasonCode = 0x95
	MessageRateTooHigh                  ReasonCode = 0x96
	QuotaExceeded                       ReasonCode = 0x97
	AdministrativeAction                ReasonCode = 0x98
	PayloadFormatInvalid                ReasonCode = 0x99
	RetainNotSupported                  ReasonCode = 0x9A
	QoSNotSupported                     ReasonCode = 0x9B
	UseAnotherServer                    ReasonCode = 0x9C
	ServerMoved                         ReasonCode = 0x9D
	SharedSubscriptionsNotSupported     ReasonCode = 0x9E
	ConnectionRateExceeded              ReasonCode = 0x9F
	MaximumConnectTime                  ReasonCode = 0xA0
	SubscriptionIdentifiersNotSupported ReasonCode = 0xA1
	WildcardSubscriptionsNotSupported   ReasonCode = 0xA2
)

// reasonNames holds the names of the standard's table of reason codes. Code 0
// has three of them, depending on the packet; the log gets the shortest.
var reasonNames = map[ReasonCode]string{
	Success:                             "Success",
	GrantedQoS1:                         "Granted QoS 1",
	GrantedQoS2:                         "Granted QoS 2",
	DisconnectWithWill:                  "Disconnect with Will Message",
	NoMatchingSubscribers:               "No matching subscribers",
	NoSubscriptionExisted:               "No subscription existed",
	ContinueAuthentication:              "Continue authentication",
	Reauthenticate:                      "Re-authenticate",
	UnspecifiedError:                    "Unspecified error",
	MalformedPacket:                     "Malformed Packet",
	ProtocolError:                       "Protocol Error",
	ImplementationSpecificError:         "Implementation specific error",
	UnsupportedProtocolVersion:          "Unsupported Protocol Version",
	ClientIdentifierNotValid:            "Client Identifier not valid",
	BadUserNameOrPassword:               "Bad User Name or Password",
	NotAuthorized:                       "Not authorized",
	ServerUnavailable:                   "Server unavailable",
	ServerBusy:                          "Server busy",
	Banned:                              "Banned",
	ServerShuttingDown:                  "Server shutting down",
	BadAuthenticationMethod:             "Bad authentication method",
	KeepAliveTimeout:                    "Keep Alive timeout",
	SessionTakenOver:                    "Session taken over",
	TopicFilterInvalid:                  "Topic Filter invalid",
	TopicNameInvalid:                    "Topic Name invalid",
	PacketIdentifierInUse:               "Packet Identifier in use",
	PacketIdentifierNotFound:            "Packet Identifier not found",
	ReceiveMaximumExceeded:              "Receive Maximum exceeded",
	TopicAliasInvalid:                   "Topic Alias invalid",
	PacketTooLarge:                      "Packet too large",
	MessageRateTooHigh:                  "Message rate too high",
	QuotaExceeded:                       "Quota exceeded",
	AdministrativeAction:                "Administrative action",
	PayloadFormatInvalid:                "Payload format invalid",
	RetainNotSupported:                  "Retain not supported",
	QoSNotSupported:                     "QoS not supported",
	UseAnotherServer:                    "Use another server",
	ServerMoved:                         "Server moved",
	SharedSubscriptionsNotSupported:     "Shared Subscriptions not supported",
	ConnectionRateExceeded:              "Connection rate exceeded",
	MaximumConnectTime:                  "Maximum connect time",
	SubscriptionIdentifiersNotSupported: "Subscription Identifiers not supported",
	WildcardSubscriptionsNotSupported:   "Wildcard Subscriptions not supported",
}

func (c ReasonCode) String() string {
	if name, ok := reasonNames[c]; ok {
		return name
	}
	return fmt.Sprintf("ReasonCode(0x%02X)", byte(c))
}

// IsError reports whether c says that something failed.
func (c ReasonCode) IsError() bool { return c >= 0x80 }

// reasonSet is a set of reason codes, one bit each.
type reasonSet [4]uint64

func reasons(codes ...ReasonCode) reasonSet {
	var s reasonSet
	for _, c := range codes {
		s[c>>6] |= 1 << (c & 63)
	}
	return s
}

func (s *reasonSet) has(c ReasonCode) bool { return s[c>>6]&(1<<(c&63)) != 0 }

// reasonRule names the codes that a packet type may carry, and the requirement
// that says so.
type reasonRule struct {
	listed reasonSet
	cite   string
}

var (
	publishReasons = reasons(Success, NoMatchingSubscribers, UnspecifiedError, ImplementationSpecificError,
		NotAuthorized, TopicNameInvalid, PacketIdentifierInUse, QuotaExceeded, PayloadFormatInvalid)
	releaseReasons = reasons(Success, PacketIdentifierNotFound)
)

// reasonRules is indexed by packet type; both sides' codes are listed, because
// a packet does not show who sent it.
var reasonRules = [16]reasonRule{
	CONNACK: {reasons(Success, UnspecifiedError, MalformedPacket, ProtocolError, ImplementationSpecificError,
		UnsupportedProtocolVersion, ClientIdentifierNotValid, BadUserNameOrPassword, NotAuthorized,
		ServerUnavailable, ServerBusy, Banned, BadAuthenticationMethod, TopicNameInvalid, PacketTooLarge,
		QuotaExceeded, PayloadFormatInvalid, RetainNotSupported, QoSNotSupported, UseAnotherServer,
		ServerMoved, ConnectionRateExceeded), "MQTT-3.2.2-8"},
	PUBACK:  {publishReasons, "MQTT-3.4.2-1"},
	PUBREC:  {publishReasons, "MQTT-3.5.2-1"},
	PUBREL:  {releaseReasons, "MQTT-3.6.2-1"},
	PUBCOMP: {releaseReasons, "MQTT-3.7.2-1"},
	SUBACK: {reasons(GrantedQoS0, GrantedQoS1, GrantedQoS2, UnspecifiedError, ImplementationSpecificError,
		NotAuthorized, TopicFilterInvalid, PacketIdentifierInUse, QuotaExceeded,
		SharedSubscriptionsNotSupported, SubscriptionIdentifiersNotSupported,
		WildcardSubscriptionsNotSupported), "MQTT-3.9.3-2"},
	UNSUBACK: {reasons(Success, NoSubscriptionExisted, UnspecifiedError, ImplementationSpecificError,
		NotAuthorized, TopicFilterInvalid, PacketIdentifierInUse), "MQTT-3.11.3-2"},
	DISCONNECT: {reasons(NormalDisconnection, DisconnectWithWill, UnspecifiedError, MalformedPacket, ProtocolError,
		ImplementationSpecificError, NotAuthorized, ServerBusy, ServerShuttingDown, KeepAliveTimeout,
		SessionTakenOver, TopicFilterInvalid, TopicNameInvalid, ReceiveMaximumExceeded, TopicAliasInvalid,
		PacketTooLarge, MessageRateTooHigh, QuotaExceeded, AdministrativeAction, PayloadFormatInvalid,
		RetainNotSupported, QoSNotSupported, UseAnotherServer, ServerMoved, SharedSubscriptionsNotSupported,
		ConnectionRateExceeded, MaximumConnectTime, SubscriptionIdentifiersNotSupported,
		WildcardSubscriptionsNotSupported), "MQTT-3.14.2-1"},
	AUTH: {reasons(Success, ContinueAuthentication, Reauthenticate), "MQTT-3.15.2-1"},
}

// checkReason refuses a code that the packet type does not list. The standard
// gives no code for this; data that the protocol does not allow is what it calls
// a protocol error.
func checkReason(t Type, c ReasonCode) *Error {
	rule := &reasonRules[t&15]
	if rule.listed.has(c) {
		return nil
	}
	return protocolError(rule.cite, fmt.Sprintf("%v with reason code 0x%02X", t, byte(c)))
}

// Listed reports whether a packet of type t may carry c, so that a caller with an
// error in hand can choose the packet to say it in.
func (c ReasonCode) Listed(t Type) bool {
	return t <= AUTH && reasonRules[t].listed.has(c)
}

// Error is a violation of the protocol by the peer: the reason code to answer
// with, and for the log what was wrong and which requirement says so. Where the
// standard has no number, Cite is empty.
type Error struct {
	Code   ReasonCode
	Reason string
	Cite   string
}

func (e *Error) Error() string {
	if e.Cite == "" {
		return e.Code.String() + ": " + e.Reason
	}
	return e.Code.String() + ": " + e.Reason + " [" + e.Cite + "]"
}

func malformed(cite, reason string) *Error {
	return &Error{Code: MalformedPacket, Reason: reason, Cite: cite}
}

func protocolError(cite, reason string) *Error {
	return &Error{Code: ProtocolError, Reason: reason, Cite: cite}
}
