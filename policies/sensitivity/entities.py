"""The types of entities that detectors may find: one vocabulary for detectors, policies and records.

Names are Presidio's where it has one for the same thing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

ENTITIES: Mapping[str, str] = {
    "KEYWORD": "a word of the organisation's own",
    "PERSON": "a name of a person (needs a detector of names)",
    "LOCATION": "a place or an address (needs a detector of names)",
    "ORGANIZATION": "a name of an organisation (needs a detector of names)",
    "EMAIL_ADDRESS": "an e-mail address",
    "PHONE_NUMBER": "a phone number",
    "CREDIT_CARD": "a payment card number",
    "IBAN_CODE": "an international bank account number",
    "IP_ADDRESS": "an IPv4 or IPv6 address",
    "MAC_ADDRESS": "a hardware address",
    "URL": "a web address",
    "US_SSN": "a US social security number",
    "JP_MY_NUMBER": "a Japanese individual number (My Number)",
    "JP_POSTAL_CODE": "a Japanese postal code",
    "JP_ADDRESS": "a Japanese postal address",
    "PASSPORT": "a passport number",
    "DRIVER_LICENSE": "a driving licence number",
    "DATE_OF_BIRTH": "a date of birth",
    "MEDICAL_RECORD": "a medical record number",
    "URL_CREDENTIALS": "a user and password in a web address",
    "CLOUD_KEY": "an access key of a cloud or an online service",
    "PRIVATE_KEY": "a private key",
    "JWT": "a JSON web token",
    "TOKEN": "another credential: a password, an API key or token beside a word that says so",
}
"""Every type, and what it is."""

ALIASES: Mapping[str, str] = {
    "EMAIL": "EMAIL_ADDRESS",
    "PHONE": "PHONE_NUMBER",
    "IBAN": "IBAN_CODE",
    "IP": "IP_ADDRESS",
    "SSN": "US_SSN",
    "MY_NUMBER": "JP_MY_NUMBER",
}
"""Short names that policies may write."""


ENTITY_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,62}")
"""What an organisation may call an entity of its own."""


def canonical(name: str) -> str:
    return ALIASES.get(name, name)
