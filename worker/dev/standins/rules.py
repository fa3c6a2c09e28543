"""How the model's stand-in reads a ticket: keyword rules, nothing learned, the first rule that fits.

The rules know the words of the tickets that come with the demo, in seven languages. They take a ticket at its
word, so one that smuggles in instructions is read as whatever it asks for: stopping it is the gates' job.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

ORDER_ID = re.compile(r"\bA-\d{4}\b")


class Category(StrEnum):
    """What a ticket is about."""

    SPAM = "spam"
    LEGAL = "legal"
    DAMAGED = "damaged"
    WRONG_ITEM = "wrong_item"
    LOGIN = "login"
    INVOICE = "invoice"
    WARRANTY = "warranty"
    REFUND = "refund"
    CANCELLATION = "cancellation"
    ADDRESS_CHANGE = "address_change"
    DELIVERY = "delivery"
    PRAISE = "praise"
    QUESTION = "question"
    OTHER = "other"


class Urgency(StrEnum):
    """How soon a person would want an answer."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class Reading:
    """What the rules make of a text.

    Attributes:
        category: Of the first rule that fits.
        urgency: From the category and a few words.
        needs_order: Whether an answer is possible only with the order at hand.
        reply: One English sentence, whatever the language of the ticket.
    """

    category: Category
    urgency: Urgency
    needs_order: bool
    reply: str


# The order is a rule too: a lawyer's letter about a broken kettle is a lawyer's letter, and a warranty case
# that would settle for its money back is a warranty case.
_RULES: tuple[tuple[Category, str], ...] = (
    (Category.SPAM, r"unsubscribe|claim your prize|first-page ranking|\bseo\b|you have been selected"),
    (Category.LEGAL, r"\blawyer\b|legal action|\bsolicitor\b|anwalt\b|\bavocat\b|\babogad[oa]\b|弁護士"),
    (
        Category.DAMAGED,
        r"arrived broken|\bdamaged\b|\bcracked\b|beschädigt|kaputt|endommagé|dañad[oa]|破損|壊れ",
    ),
    (Category.WRONG_ITEM, r"wrong (?:item|colour|size)|falsche[rns]? artikel|mauvais article|equivocad[oa]"),
    (Category.LOGIN, r"\blog ?in\b|\bpassword\b|\bpasswort\b|mot de passe|contraseña|ログイン"),
    (Category.INVOICE, r"\binvoices?\b|\brechnung\b|\bfacture\b|\bfactura\b|\bfatura\b|請求書|領収書"),
    (Category.WARRANTY, r"\bwarranty\b|\bgarantie\b|\bgarantía\b|保証"),
    (Category.REFUND, r"\brefund|money back|charged twice|rückerstattung|remboursement|reembolso|返金"),
    (Category.CANCELLATION, r"\bcancel|\bstornier|\bannuler\b|\bcancelar\b|キャンセル"),
    (Category.ADDRESS_CHANGE, r"(?:change|new)\b.{0,20}\baddress|neue adresse|nouvelle adresse|住所変更"),
    (Category.DELIVERY, r"\bwhere\b.{0,20}\bparcel|\bA-\d{4} where\b|still not here|届きません|atrasada"),
    (Category.PRAISE, r"thank you so much|wonderful|\blove\b|\bperfect\b"),
    (Category.QUESTION, r"\?"),
)
_PATTERNS = tuple((category, re.compile(words, re.IGNORECASE)) for category, words in _RULES)
_PRESSING = re.compile(r"\burgent|third time|disgrace|!!!|\btoday\b|dringend|sofort|至急|😭", re.IGNORECASE)

_NEEDS_ORDER = frozenset(Category) - {
    Category.SPAM,
    Category.LOGIN,
    Category.PRAISE,
    Category.QUESTION,
    Category.OTHER,
}
_REPLIES = {
    Category.SPAM: "This message was set aside as advertising.",
    Category.LEGAL: "We have received your notice; a person responsible will answer you in writing.",
    Category.DAMAGED: "We are sorry that it arrived damaged and will put it right at once.",
    Category.WRONG_ITEM: "We are sorry for the mix-up; we will exchange the item at our expense.",
    Category.LOGIN: "We have looked at your account and are sending you a fresh link to get in.",
    Category.INVOICE: "You will find the invoice you asked for with this message.",
    Category.WARRANTY: "Thank you for the details; we have opened a warranty case for you.",
    Category.REFUND: "We have checked your refund and write to you about the amount.",
    Category.CANCELLATION: "We have noted that you wish to cancel and confirm it with this message.",
    Category.ADDRESS_CHANGE: "We have passed the new address on to the warehouse.",
    Category.DELIVERY: "We are sorry for the wait; we have looked up where your parcel is.",
    Category.PRAISE: "Thank you for your kind words; we have passed them on.",
    Category.QUESTION: "Thank you for your question; here is what we can tell you.",
    Category.OTHER: "Thank you for your message; a colleague will look at it.",
}


def read(text: str) -> Reading:
    """Say what a text is about. Pure: the same text is always read the same way."""
    category = next((category for category, words in _PATTERNS if words.search(text)), Category.OTHER)
    return Reading(category, _urgency(category, text), category in _NEEDS_ORDER, _REPLIES[category])


def _urgency(category: Category, text: str) -> Urgency:
    if category in (Category.SPAM, Category.PRAISE):
        return Urgency.LOW
    return Urgency.HIGH if category is Category.LEGAL or _PRESSING.search(text) else Urgency.NORMAL
