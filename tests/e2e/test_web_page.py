"""The approval page in a browser: what somebody sees, clicks and types. A picture of each state is kept among the build's
artefacts. What the page may show and do is tested in test_web_api.py."""

import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import browser, processes
from support.e2e import Guard, main, needs_guard
from support.page import PASSWORDS, WHERE, WithPage
from support.wire import bind, execute, parse, sync

UPDATE = "UPDATE jobs SET state = 'done'"


class InABrowser(WithPage):
    size, dark = browser.DESKTOP, False

    @classmethod
    def setUpClass(cls):
        if why := browser.missing():
            raise unittest.SkipTest(why)
        super().setUpClass()
        cls.browser = browser.Browser(cls.size, cls.dark)
        cls.addClassCleanup(cls.browser.close)

    def setUp(self):
        super().setUp()
        self.go()
        self.browser.forget()

    def tearDown(self):
        # A page that works breaks no rule of its own, and nothing in it goes wrong.
        self.assertEqual([], self.browser.complaints())
        super().tearDown()

    def go(self, place: str = ""):
        self.browser.open(f"http://{WHERE}:{self.web_port}/{place}")

    def log_in(self, role: str = "bob", place: str = "", password: str = None):
        self.go(place)
        self.fill_in(role, PASSWORDS[role] if password is None else password)

    def fill_in(self, role: str, password: str):
        if self.browser.see("#login-role").get_attribute("value") != role:
            self.browser.type("#login-role", role)
        self.browser.type("#login-password", password)
        self.browser.click("[data-do=login]")

    def card(self, ticket: str) -> str:
        return f"#main [data-ticket={ticket}]"

    def opened(self, ticket: str):
        return self.browser.see(f"article.ticket[data-ticket={ticket}]")


@needs_guard
class Deciding(InABrowser):
    def test_what_waits_shows_by_itself_and_is_approved_with_two_clicks(self):
        self.log_in()
        self.browser.see("[data-part=nothing]")
        self.browser.shoot("1-empty")
        connection = self.wire()
        ticket = self.hold(connection, "DELETE FROM tried")
        card = self.browser.see(self.card(ticket), "DELETE")
        self.assertIn("60", card.text)
        self.assertEqual("(1) pgchaperone", self.browser.driver.title)
        card.find_element("css selector", "a.open").click()
        self.opened(ticket)
        self.assertIn("60", self.browser.text("[data-part=headline]"))
        rows = [row.text.split() for row in
                self.browser.driver.find_elements("css selector", "[data-part=effects] tbody tr")]
        self.assertEqual({("held.tried", "20", "0", "0"), ("held.receipts", "40", "0", "0")}, {tuple(r) for r in rows})
        self.browser.shoot("3-opened")
        self.browser.type("#comment", "checked with ops")
        self.browser.click("[data-do=approve]")
        self.browser.see("[data-do=confirm]", "60 rows")
        self.assertEqual("pending", self.fields(ticket)["state"], "one click decides nothing")
        self.browser.shoot("4-asked-again")
        time.sleep(0.5)
        self.browser.click("[data-do=confirm]")
        self.browser.see("[data-part=message]", "runs")
        self.done(connection, tag="DELETE 20")
        self.browser.see("[data-part=outcome]", "DELETE 20")
        self.browser.shoot("5-decided")
        self.assertEqual("checked with ops", self.api("bob").ticket(ticket)["votes"][0]["comment"])

    def test_three_that_wait(self):
        self.log_in()
        held = [self.wire(), self.wire("clara")]
        tickets = [self.hold(held[0], "DELETE FROM tried"), self.hold(held[1], "UPDATE planned SET state = 'x'"),
                   self.given("pair")]
        for ticket in tickets:
            self.browser.see(self.card(ticket))
        self.browser.shoot("2-three-pending")
        # What would be lost is the biggest thing on a card.
        sizes = self.browser.run("""return [...document.querySelectorAll('#main [data-ticket] *')]
            .filter(e => e.childNodes.length && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()))
            .map(e => [parseFloat(getComputedStyle(e).fontSize), e.textContent])""")
        self.assertRegex(max(sizes)[1], r"^\D*\d+")

    def test_no_by_the_keyboard_alone(self):
        self.log_in()
        connection = self.wire()
        ticket = self.hold(connection, UPDATE)
        self.browser.see(self.card(ticket))
        from selenium.webdriver.common.keys import Keys
        self.browser.press("j", Keys.ENTER)
        self.opened(ticket)
        self.browser.press("d")
        self.browser.see("[data-do=confirm]", "Deny")
        self.browser.press("id 4 only?")
        time.sleep(0.5)
        self.browser.press(Keys.ENTER)
        self.browser.see("[data-part=message]", "does not run")
        errors = [f.fields()["M"] for f in connection.until_ready() if f.tag == "E"]
        self.assertEqual([f"pgchaperone: UPDATE was denied by bob (ticket {ticket}): id 4 only?"], errors)
        self.browser.press(Keys.ESCAPE)
        self.browser.see("[data-part=list], [data-part=nothing]")
        self.browser.press("h")
        self.browser.see(f"[data-part=history] [data-ticket={ticket}]", "denied")
        self.browser.shoot("6-history")
        self.browser.press("?")
        self.browser.see("#keys", "approve")

    def test_one_s_own_ticket_has_nothing_to_approve_and_can_be_taken_back(self):
        ticket = self.given("later", "bob")
        self.log_in("bob", f"#{ticket}")
        self.opened(ticket)
        self.browser.see("[data-part=why-not]", "somebody else has to decide")
        self.assertIsNone(self.browser.find("[data-do=approve]"))
        self.browser.click("[data-do=withdraw]")
        time.sleep(0.5)
        self.browser.click("[data-do=confirm]")
        self.browser.see("[data-part=message]", "Withdrawn")
        self.assertEqual("withdrawn", self.fields(ticket, "carol")["state"])

    def test_a_ticket_that_changes_while_it_is_looked_at_is_not_agreed_to(self):
        text = "DELETE FROM tried_later"
        ticket = self.given("tried_later", text=text)
        self.log_in("bob", f"#{ticket}")
        self.opened(ticket)
        self.assertIn("20", self.browser.text("[data-part=headline]"))
        self.browser.click("[data-do=approve]")
        self.browser.see("[data-do=confirm]")
        self.sql("INSERT INTO held.tried_later SELECT i, 'more' FROM generate_series(100, 150) i")
        self.assertEqual(ticket, self.given("tried_later", text=text))
        time.sleep(0.5)
        # The page may have looked again by itself meanwhile, and then there is nothing to confirm any more.
        self.browser.run("document.querySelector('[data-do=confirm]')?.click()")
        self.browser.see("[data-part=headline]", "71")
        self.browser.see("[data-part=notice]", "changed")
        self.assertIsNone(self.browser.find("[data-do=confirm]"), "what was armed was another thing")
        self.assertEqual("pending", self.fields(ticket)["state"])

    def test_parameters_and_a_plan(self):
        self.log_in()
        connection = self.wire()
        text = "UPDATE planned SET state = $1 WHERE $2::int IS NULL OR true"
        ticket = self.hold(connection, parse(text) + bind(parameters=["NULL", None]) + execute() + sync())
        self.go(f"#{ticket}")
        self.opened(ticket)
        self.assertIn("$1", self.browser.text("[data-part=parameters]"))
        self.assertEqual("NULL", self.browser.text("[data-part=parameters] .null"))
        self.assertIn("Update on planned", self.browser.text("[data-part=plan]"))


@needs_guard
class Sessions(InABrowser):
    def test_a_wrong_password_is_told_and_the_right_one_leads_to_where_one_wanted(self):
        ticket = self.given()
        self.go(f"#{ticket}")
        self.browser.see("[data-part=login]")
        self.browser.shoot("0-login")
        self.fill_in("bob", "wrong")
        self.browser.see("[data-part=login-problem]", "assword authentication failed")
        self.fill_in("bob", PASSWORDS["bob"])
        self.opened(ticket)
        self.browser.see("#role", "bob")
        self.browser.click("#logout")
        self.browser.see("[data-part=login]")
        self.go()
        self.browser.see("[data-part=login]")
        self.assertNotIn("UPDATE", self.browser.driver.page_source)

    def test_a_session_that_is_over_says_so_and_loses_nothing_that_was_typed(self):
        ticket = self.given()
        self.log_in("bob", f"#{ticket}")
        self.opened(ticket)
        self.browser.type("#comment", "half a thought")
        self.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgchaperone web'")
        self.browser.click("[data-do=approve]")
        time.sleep(0.5)
        self.browser.click("[data-do=confirm]")
        self.browser.see("#over", "Your session is over")
        self.browser.shoot("7-session-over")
        self.assertEqual("pending", self.fields(ticket)["state"])
        self.browser.type("#over #login-password", PASSWORDS["bob"])
        self.browser.click("#over [data-do=login]")
        processes.wait_until(lambda: not self.browser.find("#over[open]"), 10, "the way back")
        self.assertEqual("half a thought", self.browser.see("#comment").get_attribute("value"))

    def test_a_guard_that_is_away_is_told_and_found_again(self):
        port = processes.free_port()
        guard = Guard(self.cluster, "--web-listen", f"{WHERE}:{port}", "--web-database", "people")
        self.addCleanup(guard.erase)
        self.browser.open(f"http://{WHERE}:{port}/")
        self.fill_in("bob", PASSWORDS["bob"])
        self.browser.see("#status", "Live")
        guard.stop()
        self.browser.see("#over", "gchaperone stops")
        self.browser.type("#over #login-password", PASSWORDS["bob"])
        self.browser.click("#over [data-do=login]")
        self.browser.see("#over [data-part=login-problem]")
        guard.start()
        self.browser.type("#over #login-password", PASSWORDS["bob"])
        self.browser.click("#over [data-do=login]")
        self.browser.see("#status", "Live")


@needs_guard
class MeaningIll(InABrowser):
    def test_what_a_statement_holds_is_text(self):
        html = "UPDATE later SET state = '<img src=x onerror=document.title=1><script>document.title=2</script>'"
        ticket = self.given(text=html)
        self.log_in("bob", f"#{ticket}")
        self.opened(ticket)
        self.assertIn("<img src=x onerror=document.title=1><script>", self.browser.text("[data-part=sql]"))
        self.assertEqual(0, self.browser.run("return document.querySelectorAll('#main img, #main script').length"))
        self.assertIn("pgchaperone", self.browser.driver.title)

    def test_what_hides_or_turns_text_is_spelled_out(self):
        ticket = self.given(text="UPDATE later SET state = 'a\u202eb\u200d\x07' /* \u2066 WHERE id = 1 */")
        self.log_in("bob", f"#{ticket}")
        self.opened(ticket)
        shown = self.browser.text("[data-part=sql]")
        for mark in ("<U+202E>", "<U+200D>", "<U+0007>", "<U+2066>"):
            self.assertIn(mark, shown)
        self.assertNotRegex(shown, "[\u202e\u200d\u2066\x07]")
        self.browser.see("[data-warning=hidden]")
        self.browser.shoot("8-hidden-characters")

    def test_ten_megabytes_open_at_once_and_say_that_they_are_cut(self):
        ticket = self.given(text="UPDATE later SET state = '" + "x y" * 3_300_000 + "'")
        began = time.monotonic()
        self.log_in("bob", f"#{ticket}")
        self.opened(ticket)
        self.browser.see("[data-warning=cut]")
        self.assertLess(time.monotonic() - began, 20)
        began = time.monotonic()
        self.browser.click("[data-do=approve]")
        self.browser.see("[data-do=confirm]")
        self.assertLess(time.monotonic() - began, 15, "the page is slow")


@needs_guard
class OnAPhone(InABrowser):
    size = browser.PHONE

    def test_it_fits_and_can_be_decided_by_a_thumb(self):
        connection = self.wire()
        ticket = self.hold(connection, "DELETE FROM tried")
        self.log_in()
        self.browser.see(self.card(ticket))
        self.browser.shoot("9-phone-list")
        self.fits()
        self.go(f"#{ticket}")
        self.opened(ticket)
        self.fits()
        self.browser.shoot("9-phone-opened")
        height = self.browser.see("[data-do=approve]").size["height"]
        self.assertGreaterEqual(height, 44)
        self.browser.click("[data-do=approve]")
        time.sleep(0.5)
        self.browser.click("[data-do=confirm]")
        self.browser.see("[data-part=message]", "runs")
        self.done(connection, tag="DELETE 20")

    def fits(self):
        wide = self.browser.run("return document.documentElement.scrollWidth")
        self.assertLessEqual(wide, self.size[0], "it has to be scrolled sideways")


@needs_guard
class InTheDark(InABrowser):
    dark = True

    def test_it_is_dark_and_can_be_read(self):
        connection = self.wire()
        ticket = self.hold(connection, "DELETE FROM tried")
        self.log_in("bob", f"#{ticket}")
        self.opened(ticket)
        self.browser.shoot("10-dark")
        ground, ink = self.browser.run(
            "return [getComputedStyle(document.documentElement).backgroundColor === 'rgba(0, 0, 0, 0)' ?"
            " getComputedStyle(document.body).backgroundColor : getComputedStyle(document.documentElement).backgroundColor,"
            " getComputedStyle(document.querySelector('[data-part=headline]')).color]")
        self.assertGreaterEqual(contrast(ground, ink), 4.5)
        self.assertLess(luminance(ground), 0.1)


def luminance(colour: str) -> float:
    """WCAG's relative luminance of "rgb(1, 2, 3)"."""
    parts = [float(part) / 255 for part in colour[colour.index("(") + 1:-1].split(",")[:3]]
    red, green, blue = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


if __name__ == "__main__":
    main()
