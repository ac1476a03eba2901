<%inherit file="layout.mako"/>
<%def name="title()">Chat</%def>
<%def name="head()">
  <script type="module" src="${request.static_path('{{ cookiecutter.package_name }}:static/page.js')}"></script>
</%def>
    <section class="hero">
      <h1>It is live.</h1>
      <p>A WebSocket carries messages <strong>both ways</strong>, and an event stream
      carries ticks <strong>from the server</strong>. Open this page twice, and talk to
      yourself. Restart the server, and watch both come back.</p>
    </section>

    <noscript><p class="panel">The page needs JavaScript to open its connections.</p></noscript>

    <div class="columns">
      <section class="panel" id="chat" aria-labelledby="chat-title" data-address="${request.route_path('chat')}">
        <header>
          <h2 id="chat-title">Chat</h2>
          <span class="state" data-state="connecting">connecting</span>
        </header>
        <ol class="lines" role="log" aria-label="What happened on the WebSocket" tabindex="0"></ol>
        <form>
          <label for="message">Message to everybody</label>
          <div class="row">
            <input id="message" type="text" maxlength="2000" autocomplete="off" required>
            <button type="submit" disabled>Send</button>
          </div>
        </form>
      </section>

      <section class="panel" id="ticks" aria-labelledby="ticks-title" data-address="${request.route_path('ticks')}">
        <header>
          <h2 id="ticks-title">Ticks</h2>
          <span class="state" data-state="connecting" role="status">connecting</span>
        </header>
        <ol class="lines" aria-label="Ticks of the event stream" tabindex="0"></ol>
        <p class="note">After an interruption the browser names the last tick that it
        has seen, and is sent what it missed.</p>
      </section>
    </div>

    <section class="next">
      <h2>Where to go on</h2>
      <ul>
        <li>Change <code>{{ cookiecutter.package_name }}/views.py</code>, with <code>pserve --reload development.ini</code> running.</li>
        <li>The page's side of both is in <code>{{ cookiecutter.package_name }}/static/page.js</code>.</li>
        <li>Run the tests: <code>pytest</code>.</li>
      </ul>
    </section>
