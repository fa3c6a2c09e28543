"""``email.send``: hand one message to an SMTP server, step by step, so that it is known how far it got."""

from __future__ import annotations

import smtplib
import ssl
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr

from typing_extensions import TypedDict

from producer.errors import SettingsError
from tasks import ActionError, Context, Retry, Unknown, action
from tasks._classify import NEVER_LEFT, NOT_SET, error_of, meaning_of_code, unsent
from tasks._settings import Smtp, smtp

TAKEN = 250
TEMPORARY, BEYOND = 400, 600


class Sent(TypedDict):
    """What the server took: `refused` maps the recipients that it did not take to its words."""

    message_id: str
    accepted: list[str]
    refused: dict[str, str]


@action("email.send", effect="unsafe", timeout=60)
def send(
    to: list[str] | str,
    subject: str,
    body: str,
    sender: str,
    ctx: Context,
    reply_to: str | None = None,
    html: str | None = None,
) -> Sent:
    """Send one message. ``unsafe``: SMTP has no way to ask whether a message was taken.

    A server that vanishes after the message left puts the job in doubt; any failure before that is tried again.

    Args:
        to: One address or several.
        subject: One line.
        body: Plain text.
        sender: The From address.
        ctx: The attempt.
        reply_to: Where answers go; None is the sender.
        html: The same as `body`, for readers that show HTML.

    Raises:
        Retry: If the server could not be reached or put us off before it took the message.
        Refused: If it refused the sender, every recipient or the message; or if the message cannot be written.
        Unknown: If it vanished after the message left.
    """
    recipients = [to] if isinstance(to, str) else to
    message = _message(recipients, subject, body, sender, ctx, reply_to, html)
    try:
        server = _connect(smtp(), ctx.seconds_left)
        try:
            refused = _address(server, sender, recipients)
            _hand_over(server, message)
        finally:
            _leave(server)
    except (smtplib.SMTPResponseException, smtplib.SMTPRecipientsRefused) as error:
        raise _refusal(error) from error
    except UnicodeError as error:  # an address that SMTP cannot spell
        raise unsent(f"an address cannot be written: {error}") from error
    except SettingsError as error:
        raise error_of(NOT_SET, f"{type(error).__name__}: {error}") from error
    except (OSError, smtplib.SMTPException) as error:  # before DATA: _hand_over raises Unknown itself
        raise Retry(f"{type(error).__name__}: {error}") from error
    return Sent(message_id=message["Message-ID"], accepted=[r for r in recipients if r not in refused], refused=refused)


def _message(
    to: list[str], subject: str, body: str, sender: str, ctx: Context, reply_to: str | None, html: str | None
) -> EmailMessage:
    message = EmailMessage()
    strangers = [address for address in to if "@" not in parseaddr(address)[1]]
    if strangers or not to:
        raise unsent(f"{len(strangers)} of {len(to)} recipients are no mail address; one is needed at least")
    try:
        message["From"], message["To"], message["Subject"] = sender, ", ".join(to), subject
        if reply_to:
            message["Reply-To"] = reply_to
        # The same for every attempt: a server or mailbox that looks at it can drop a repeat.
        message["Message-ID"] = f"<{ctx.downstream_key().replace(':', '.')}@surefoot>"
        message["Date"] = format_datetime(datetime.now(UTC))
        message.set_content(body)
        if html:
            message.add_alternative(html, subtype="html")
    except (ValueError, IndexError) as error:  # a header with a line break, an address that is none
        raise unsent(f"the message cannot be written: {error}") from error
    return message


def _connect(where: Smtp, timeout: float) -> smtplib.SMTP:
    if where.security == "tls":
        server: smtplib.SMTP = smtplib.SMTP_SSL(
            where.host, where.port, timeout=timeout, context=ssl.create_default_context()
        )
    else:
        server = smtplib.SMTP(where.host, where.port, timeout=timeout)
    server.ehlo_or_helo_if_needed()
    if where.security == "starttls":
        server.starttls(context=ssl.create_default_context())
        server.ehlo()
    if where.user:
        server.login(where.user, where.password or "")
    return server


def _address(server: smtplib.SMTP, sender: str, recipients: list[str]) -> dict[str, str]:
    """Name sender and recipients; return those that the server does not take, if it takes any."""
    _expect(server.mail(sender))
    answers = {recipient: server.rcpt(recipient) for recipient in recipients}
    refused = {r: (code, reason) for r, (code, reason) in answers.items() if code not in (250, 251)}
    if len(refused) == len(answers):
        raise smtplib.SMTPRecipientsRefused(refused)
    return {r: f"{code} {reason.decode(errors='replace')}" for r, (code, reason) in refused.items()}


def _hand_over(server: smtplib.SMTP, message: EmailMessage) -> None:
    """Send the message itself. Only an answer settles what became of it, and only 4xx and 5xx are a no."""
    text = message.as_bytes()
    try:
        code, words = server.data(text)
    except smtplib.SMTPDataError:
        raise  # it would not even have the message
    except (OSError, smtplib.SMTPException) as error:
        raise Unknown(f"the server vanished after the message left: {type(error).__name__}: {error}") from error
    if TEMPORARY <= code < BEYOND:
        raise smtplib.SMTPResponseException(code, words)
    if code != TAKEN:
        raise Unknown(f"the server's answer to the message cannot be read: {code}")


def _leave(server: smtplib.SMTP) -> None:
    """Say goodbye. What the server makes of that says nothing of the message."""
    try:
        server.quit()
    except (OSError, smtplib.SMTPException):
        server.close()


def _expect(answer: tuple[int, bytes]) -> None:
    code, words = answer
    if code != TAKEN:
        raise smtplib.SMTPResponseException(code, words)


def _refusal(error: smtplib.SMTPResponseException | smtplib.SMTPRecipientsRefused) -> ActionError:
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        answers = error.recipients.values()
        code, words = max(answers, key=lambda answer: answer[0])
    else:
        code, words = error.smtp_code, error.smtp_error if isinstance(error.smtp_error, bytes) else b""
    meaning = meaning_of_code(code)
    # Before the message is taken a strange answer is as good as none: _hand_over has the one that is not.
    meaning = NEVER_LEFT if meaning.effect == "unknown" else meaning
    return error_of(meaning, f"the mail server answered {code} {words.decode(errors='replace')}")
