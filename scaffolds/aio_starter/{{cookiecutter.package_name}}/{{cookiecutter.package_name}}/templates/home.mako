<%inherit file="layout.mako"/>
<%def name="title()">Welcome</%def>
    <section class="hero">
      <h1>It works.</h1>
      <p>A coroutine made this page <strong>on the event loop</strong>. It waited for
      two things at once, and the server was free for others meanwhile.</p>
    </section>

    <section class="panel" aria-labelledby="waits">
      <h2 id="waits">What this page waited for</h2>
      <dl class="waits">
% for wait in waits:
        <div>
          <dt>${wait["name"]}</dt>
          <dd><span class="wait" style="--share: ${wait['seconds'] / max(elapsed, 0.001)}">${round(wait["seconds"] * 1000)} ms</span></dd>
        </div>
% endfor
        <div class="total">
          <dt>the page</dt>
          <dd><span class="wait" style="--share: 1">${round(elapsed * 1000)} ms</span></dd>
        </div>
      </dl>
      <p class="note">Event loop <code>${event_loop}</code> in the thread <code>${thread}</code></p>
    </section>

    <section class="cards">
      <a class="card" href="${request.route_path('status')}">
        <h2>Page or JSON</h2>
        <p>One view with <code>formats=</code>: a page for people, and JSON for
        programs.</p>
        <span class="more">status</span>
      </a>
      <a class="card" href="${request.route_path('thread')}">
        <h2>Synchronous</h2>
        <p>An ordinary function may block. It runs in a thread of the executor, and
        says which.</p>
        <span class="more">thread</span>
      </a>
    </section>

    <section class="next">
      <h2>Where to go on</h2>
      <ul>
        <li>Change <code>{{ cookiecutter.package_name }}/views.py</code>, with <code>pserve --reload development.ini</code> running.</li>
        <li>Change <code>{{ cookiecutter.package_name }}/scss/style.scss</code>, and load this page again.</li>
        <li>Add an address in <code>{{ cookiecutter.package_name }}/routes.py</code>.</li>
        <li>Run the tests: <code>pytest</code>.</li>
      </ul>
    </section>
